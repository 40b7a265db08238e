"""What verl's Ulysses needs and a CPU lacks: gloo has no all-to-all, and there is no flash-attention kernel.

Slicing, gathering and scattering of sequences and heads stay verl's own (verl/models/transformers/monkey_patch.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from verl.models.transformers import monkey_patch

ATTENTION = "varlen_on_cpu"


def install() -> None:
    """In this process, before the model is built."""
    torch.distributed.all_to_all = _all_to_all
    monkey_patch._flash_attention_forward = _varlen_kernel
    AttentionInterface.register(ATTENTION, _attention)


def _all_to_all(output: list[Tensor], inputs: list[Tensor], group: Any = None, async_op: bool = False) -> None:
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    everything = [torch.empty(size, *inputs[0].shape, dtype=inputs[0].dtype) for _ in range(size)]
    torch.distributed.all_gather(everything, torch.stack(inputs), group=group)
    for source in range(size):
        output[source].copy_(everything[source][rank])


def _varlen_kernel(query: Tensor, key: Tensor, value: Tensor, *_: Any, position_ids: Tensor, **kwargs: Any) -> Tensor:
    """Causal attention within each sequence of a packed row, ``[1, T, heads, dim]``; a sequence starts where positions do."""
    sequence = (position_ids[0] == 0).cumsum(0)
    index = torch.arange(query.shape[1])
    mask = (sequence[:, None] == sequence) & (index[:, None] >= index)
    rows = (x.transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(*rows, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' interface: ``[B, heads, T, dim]`` in, ``[B, T, heads, dim]`` out. The vision tower has no positions."""
    if kwargs.get("position_ids") is None:
        return scaled_dot_product_attention(query, key, value).transpose(1, 2), None
    rows = (x.transpose(1, 2) for x in (query, key, value))
    return monkey_patch._ulysses_flash_attention_forward(*rows, None, 0, position_ids=kwargs["position_ids"]), None
