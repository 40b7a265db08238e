"""What verl's Ulysses needs and a CPU lacks: gloo has no all-to-all. Slicing, gathering and scattering stay verl's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def install() -> None:
    """In this process."""
    torch.distributed.all_to_all = _all_to_all


def _all_to_all(output: list[Tensor], inputs: list[Tensor], group: Any = None, async_op: bool = False) -> None:
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    everything = [torch.empty(size, *inputs[0].shape, dtype=inputs[0].dtype) for _ in range(size)]
    torch.distributed.all_gather(everything, torch.stack(inputs), group=group)
    for source in range(size):
        output[source].copy_(everything[source][rank])
