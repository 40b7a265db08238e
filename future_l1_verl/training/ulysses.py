"""Splits sequences over ranks (Ulysses, arXiv 2309.14509): each has part of the tokens, and in attention of the heads."""

from torch import Tensor
from verl.models.transformers.monkey_patch import repeat_kv
from verl.utils.ulysses import (
    gather_heads_scatter_seq,
    gather_outputs_and_unpad,
    gather_seq_scatter_heads,
    slice_input_tensor,
)

from future_l1_verl.modeling.sequence import Whole


class Ulysses(Whole):
    """Splits over the ``size`` ranks of verl's sequence-parallel group, and sums gradients of `whole` over them."""

    name = "ulysses"

    def __init__(self, size: int) -> None:
        self.size = size

    def part(self, tensor: Tensor, dim: int) -> Tensor:
        return slice_input_tensor(tensor, dim=dim, padding=False)

    def whole(self, tensor: Tensor, dim: int) -> Tensor:
        return gather_outputs_and_unpad(tensor, gather_dim=dim)

    def scatter_heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exchanges parts as `Whole` describes; key heads are repeated if there are fewer of them than ranks."""
        repeats = max(self.size // key.shape[2], 1)
        key, value = (repeat_kv(rows, repeats) for rows in (key, value))
        return tuple(gather_seq_scatter_heads(rows, seq_dim=1, head_dim=2) for rows in (query, key, value))

    def gather_heads(self, output: Tensor) -> Tensor:
        return gather_heads_scatter_seq(output, head_dim=2, seq_dim=1)
