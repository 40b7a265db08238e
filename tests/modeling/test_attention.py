"""Both kernels of packed attention against torch's with the whole mask: values, gradients, and a control."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from packed import packings, visible
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from future_l1_verl.modeling.attention import KERNELS, WASTE, _like_lengths, attend, sdpa, use_packed_attention
from future_l1_verl.modeling.packing import Packing, Segments
from future_l1_verl.modeling.sequence import Whole

HEADS, KEY_HEADS, DIM, SCALE = 4, 2, 8, 0.3


@pytest.fixture(scope="module", autouse=True)
def flash_attention_in_torch() -> Any:
    """flash-attn needs a GPU; here its function for sequences of unlike lengths is spelt out in torch, as it is documented:
    causal masks are aligned at the end (``flash_attn_interface.py``, flash_attn_varlen_func)."""

    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
        softmax_scale: float, causal: bool,
    ) -> Tensor:  # fmt: skip
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and causal
        assert max_seqlen_q == int(cu_seqlens_q.diff().max()) and max_seqlen_k == int(cu_seqlens_k.diff().max())
        assert len(q) == cu_seqlens_q[-1] and len(k) == len(v) == cu_seqlens_k[-1]
        parts = []
        for query, key, value in zip(
            q.split(cu_seqlens_q.diff().tolist()), *(x.split(cu_seqlens_k.diff().tolist()) for x in (k, v)), strict=True
        ):
            mask = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
            rows = (x.transpose(0, 1) for x in (query, key, value))
            parts.append(
                scaled_dot_product_attention(*rows, attn_mask=mask, scale=softmax_scale, enable_gqa=True).transpose(0, 1)
            )
        return torch.cat(parts)

    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "flash_attn", module)
        yield


def random_rows(length: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(length, heads, DIM, generator=generator, dtype=torch.float64) for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def by_torch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float = SCALE) -> Tensor:
    rows = (x.transpose(0, 1) for x in (query, key, value))
    return scaled_dot_product_attention(*rows, attn_mask=mask, scale=scale, enable_gqa=True).transpose(0, 1)


@pytest.mark.parametrize("name", KERNELS)
@given(packing=packings())
@settings(max_examples=60)
def test_it_is_attention_with_the_whole_mask(name: str, packing: Packing) -> None:
    ours, theirs = ([x.requires_grad_() for x in random_rows(len(packing))] for _ in range(2))
    found = attend(*ours, packing, SCALE, KERNELS[name])
    expected = by_torch(*theirs, visible(packing))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for mine, its in zip(
        torch.autograd.grad((found * weights).sum(), ours), torch.autograd.grad((expected * weights).sum(), theirs), strict=True
    ):
        torch.testing.assert_close(mine, its, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_an_answer_that_saw_its_siblings_would_be_noticed(name: str) -> None:
    packing = Packing((6,), (4, 5, 3), (0, 0, 0))
    rows = random_rows(len(packing))
    found = attend(*rows, packing, SCALE, KERNELS[name])
    # Plain causal attention over the packed sequence: right in the prompt and in the first answer alone.
    mixed = by_torch(*rows, torch.ones(len(packing), len(packing), dtype=torch.bool).tril())
    torch.testing.assert_close(found[:10], mixed[:10], atol=1e-12, rtol=0)
    assert (found - mixed)[10:].abs().amax((1, 2)).min() > 1e-2


def test_pieces_of_like_lengths_share_a_call_and_unlike_ones_do_not() -> None:
    assert _like_lengths((60,) * 16, (60,) * 16) == [list(range(16))]
    long_and_short = _like_lengths((2048, *[195] * 7), (2048 + 3200, *[195 + 3200] * 7))
    assert long_and_short == [[0], [1, 2, 3, 4, 5, 6, 7]]


@given(packing=packings())
def test_padding_costs_no_more_than_it_may(packing: Packing) -> None:
    segments = packing.answer_segments
    groups = _like_lengths(segments.queries, segments.keys)
    assert sorted(piece for group in groups for piece in group) == list(range(len(segments.queries)))
    for group in groups:
        own = sum(segments.queries[piece] * segments.keys[piece] for piece in group)
        padded = len(group) * max(segments.queries[p] for p in group) * max(segments.keys[p] for p in group)
        assert len(group) == 1 or padded <= WASTE * own


def test_a_prompt_alone_needs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,200 tokens would need ten million entries a layer."""
    masks = []

    def recording(*rows: Tensor, attn_mask: Tensor | None, is_causal: bool, **kwargs: Any) -> Tensor:
        masks.append((attn_mask, is_causal))
        return scaled_dot_product_attention(*rows, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr("future_l1_verl.modeling.attention.scaled_dot_product_attention", recording)
    rows = random_rows(12)
    torch.testing.assert_close(sdpa(*rows, Segments((12,), (12,)), SCALE), by_torch(*rows, torch.ones(12, 12).tril().bool()))
    assert masks == [(None, True)]


def test_an_attention_without_a_kernel_is_refused() -> None:
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="eager"))
    with pytest.raises(ValueError, match="attn_implementation is one of sdpa, flash_attention_2, not 'eager'"):
        use_packed_attention(model, Whole())
