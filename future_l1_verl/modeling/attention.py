"""Attention of packed questions, in two calls: among prompts, and of answers over their prompt and their own tokens.

Registered with transformers, which calls it in every layer of the language model with the `Packing` of the forward pass.
The kernel of a call is FlashAttention's for sequences of different lengths, or torch's for padded ones; neither needs a mask
of the whole sequence.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from future_l1_verl.modeling.packing import Packing, Segments, queued
from future_l1_verl.modeling.sequence import Whole

Kernel = Callable[[Tensor, Tensor, Tensor, Segments, float], Tensor]
"""``(queries [Q, heads, D], keys [K, key heads, D], values [K, key heads, D], segments, scale) -> [Q, heads, D]``."""

WASTE = 1.5
"""Pieces of different lengths share a padded call if this costs at most this many times their own arithmetic."""


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, kernel: Kernel) -> Tensor:
    """Returns ``[T, heads, D]`` of a packed sequence, from queries ``[T, heads, D]``, keys, values ``[T, key heads, D]``."""
    asked = packing.asked
    prompts = kernel(query[:asked], key[:asked], value[:asked], packing.prompt_segments, scale)
    if not packing.scored:
        return prompts
    segments = packing.answer_segments
    keys, values = (rows.index_select(0, segments.taken) for rows in (key, value))
    return torch.cat([prompts, kernel(query[asked:], keys, values, segments, scale)])


def flash(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Computes attention with FlashAttention 2 on CUDA, in half precision."""
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(
        query, key, value,
        cu_seqlens_q=_offsets(segments.queries, query.device), cu_seqlens_k=_offsets(segments.keys, query.device),
        max_seqlen_q=max(segments.queries), max_seqlen_k=max(segments.keys), softmax_scale=scale, causal=True,
    )  # fmt: skip


def sdpa(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Computes attention with torch's kernel on any device: pieces of similar lengths are padded to one call."""
    parts = []
    for rows, columns, mask, flat in _batches(segments.queries, segments.keys, query.device):
        q, k, v = (
            tensor.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
            for tensor, index in ((query, rows), (key, columns), (value, columns))
        )
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(out.transpose(1, 2).flatten(0, 1).index_select(0, flat))
    whole = torch.cat(parts)
    order = _order(segments.queries, segments.keys, query.device)
    return whole if order is None else whole.index_select(0, order)


KERNELS: dict[str, Kernel] = {"sdpa": sdpa, "flash_attention_2": flash}
"""The kernels, by transformers' names of the attention."""


def use_packed_attention(language_model: nn.Module, sequence: Whole) -> None:
    """Gives ``language_model`` the attention of this module, with the kernel that it is configured for.

    Raises ValueError, naming the key, for an attention without such a kernel.
    """
    name = language_model.config._attn_implementation
    if name not in KERNELS:
        raise ValueError(f"model.override_config.attn_implementation is one of {', '.join(KERNELS)}, not {name!r}")

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, packing: Packing, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Has transformers' interface: ``[1, heads, T, D]`` to ``[1, T, heads, D]``; under Ulysses T is this rank's part."""
        q, k, v = sequence.scatter_heads(*(tensor.transpose(1, 2) for tensor in (query, key, value)))
        out = attend(q[0], k[0], v[0], packing, kwargs["scaling"], KERNELS[name])
        return sequence.gather_heads(out[None]), None

    registered = f"packed_{name}_{sequence.name}"
    AttentionInterface.register(registered, attention)
    language_model.config._attn_implementation = registered


@lru_cache(maxsize=8)
def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return queued(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


@lru_cache(maxsize=8)
def _order(queries: tuple[int, ...], keys: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Returns the position of each query in the concatenated results of the batches; None if they are in order."""
    pieces = [piece for batch in _like_lengths(queries, keys) for piece in batch]
    if pieces == sorted(pieces):
        return None
    starts = [0, *accumulate(queries)]
    brought = torch.cat([torch.arange(starts[piece], starts[piece + 1]) for piece in pieces])
    return queued(brought.argsort(), device)


@lru_cache(maxsize=8)
def _batches(
    queries: tuple[int, ...], keys: tuple[int, ...], device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
    """Returns, for each padded call: its rows of queries ``[B, Q]`` and of keys ``[B, K]``, the mask (bool ``[B, 1, Q, K]``;
    None for plain causal attention), and the indices of the true queries in ``[B * Q]``."""
    query_starts, key_starts = ([0, *accumulate(lengths)] for lengths in (queries, keys))
    found = []
    for pieces in _like_lengths(queries, keys):
        rows, columns = (max(lengths[piece] for piece in pieces) for lengths in (queries, keys))
        q, k = (torch.tensor([lengths[piece] for piece in pieces])[:, None] for lengths in (queries, keys))
        row, column = torch.arange(rows), torch.arange(columns)
        plain = rows == columns and bool((q == rows).all()) and bool((k == columns).all())
        # A padding row sees a true key too: without any key its softmax would be NaN.
        mask = None if plain else (column <= torch.minimum(row, q - 1)[..., None] + (k - q)[..., None])[:, None]
        where = [
            torch.tensor([starts[piece] for piece in pieces])[:, None] + torch.minimum(index, lengths - 1)
            for starts, index, lengths in ((query_starts, row, q), (key_starts, column, k))
        ]
        true = (row < q).flatten().nonzero()[:, 0]
        found.append(tuple(None if each is None else queued(each, device) for each in (*where, mask, true)))
    return found


@lru_cache(maxsize=8)
def _like_lengths(queries: tuple[int, ...], keys: tuple[int, ...]) -> list[list[int]]:
    """Returns pieces, longest first, in groups whose padding costs at most `WASTE`; in their order if one group suffices."""
    groups: list[list[int]] = []
    area = padded = 0
    for piece in sorted(range(len(queries)), key=lambda each: (-queries[each], -keys[each])):
        own = queries[piece] * keys[piece]
        if groups:
            members = [*groups[-1], piece]
            padded = len(members) * max(queries[each] for each in members) * max(keys[each] for each in members)
        if groups and padded <= WASTE * (area + own):
            groups[-1].append(piece)
            area += own
        else:
            groups.append([piece])
            area = own
    return [sorted(group) for group in groups]
