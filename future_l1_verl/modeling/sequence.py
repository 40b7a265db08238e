"""How the tokens of a sequence are held: all of them here, or cut over ranks (training/ulysses.py)."""

from __future__ import annotations

from torch import Tensor


class Whole:
    """Every rank holds the whole sequence."""

    name = "whole"

    def part(self, tensor: Tensor, dim: int) -> Tensor:
        """This rank's part of a tensor that goes over the sequence at ``dim``."""
        return tensor

    def whole(self, tensor: Tensor, dim: int) -> Tensor:
        """The inverse of `part`, with gradients."""
        return tensor

    def scatter_heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From a part of the sequence with all heads, ``[1, part, heads, D]``, to all of it with a part of them."""
        return query, key, value

    def gather_heads(self, output: Tensor) -> Tensor:
        """The inverse of `scatter_heads`, of the output of attention."""
        return output
