"""Access to the tokens of a sequence: all on one rank, or split over ranks (training/ulysses.py)."""

from torch import Tensor


class Whole:
    """Every rank holds the whole sequence."""

    name = "whole"

    def part(self, tensor: Tensor, dim: int) -> Tensor:
        """Returns this rank's part of a tensor whose dimension ``dim`` is the sequence."""
        return tensor

    def whole(self, tensor: Tensor, dim: int) -> Tensor:
        """Inverts `part`, with gradients."""
        return tensor

    def scatter_heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exchanges a part of the sequence with all heads, ``[1, part, heads, D]``, for all of it with a part of the heads."""
        return query, key, value

    def gather_heads(self, output: Tensor) -> Tensor:
        """Inverts `scatter_heads` on the output of attention."""
        return output
