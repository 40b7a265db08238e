"""Lays out a fixed number of latents over an image."""


def latent_grid(width: int, height: int, max_latents: int) -> tuple[int, int]:
    """Returns ``(rows, columns)`` with ``rows * columns == max_latents`` and the aspect ratio nearest to the image's.

    The distance is that between the logarithms of columns/rows and width/height; of two equally near grids the one with fewer
    rows is taken. ``width`` and ``height`` are in pixels. Raises ValueError unless all three are positive.
    """
    if min(width, height, max_latents) < 1:
        raise ValueError(f"an image of {width}x{height} cannot hold a grid of {max_latents} latents")

    def distance(rows: int) -> float:
        # |log(a / b)| orders like max(a / b, b / a), which in integers needs only one rounded division.
        ours, theirs = (max_latents // rows) * height, width * rows
        return max(ours, theirs) / min(ours, theirs)

    rows = min((r for r in range(1, max_latents + 1) if max_latents % r == 0), key=distance)
    return rows, max_latents // rows
