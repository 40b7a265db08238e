"""DAPO's soft penalty for replies that come near the maximum length."""


def overlong(length: int, max_length: int, buffer: int) -> float:
    """Returns the soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13), in [-1, 0]; all arguments count tokens.

    It is 0 up to ``max_length - buffer``, then linear to -1 at ``max_length``, and -1 beyond. Raises ValueError unless
    ``0 < buffer <= max_length``.
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"need 0 < buffer <= max_length, not {buffer} and {max_length}")
    return max(min((max_length - buffer - length) / buffer, 0.0), -1.0)
