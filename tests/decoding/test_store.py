"""What a step has to inject, and how latents travel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from future_l1_verl.decoding.vllm import completion_latents
from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.decoding.vllm.store import OUTSIDE, LatentStore, RequestLatents, Step, span_state
from future_l1_verl.decoding.vllm.v1.plan import Batch, make_plan
from future_l1_verl.decoding.vllm.wire import to_array
from future_l1_verl.latents.tokens import LatentTokens

TOKENS = LatentTokens(start=10, latent=11, end=12)
S, L, E = TOKENS.start, TOKENS.latent, TOKENS.end


def store_with(**latents: dict[int, float]) -> LatentStore:
    store = LatentStore({request: RequestLatents(SpanOptions(4)) for request in latents})
    for request, at in latents.items():
        for position, value in at.items():
            store.put([(request, position)], np.full((1, 2), value, np.float32))
    return store


def batch(rows: list[tuple[str, list[int], int, int]], discarded: list[bool] | None = None) -> Batch:
    """Rows of (request, tokens, computed, scheduled)."""
    width = max(len(tokens) for _, tokens, _, _ in rows)
    return Batch(
        request_ids=[request for request, *_ in rows],
        computed=np.array([computed for *_, computed, _ in rows]),
        offsets=np.cumsum([0] + [scheduled for *_, scheduled in rows]),
        discarded=np.array(discarded or [False] * len(rows)),
        token_ids=np.array([tokens + [0] * (width - len(tokens)) for _, tokens, _, _ in rows]),
    )


def step(requests: list[str], positions: list[int]) -> Step:
    n = len(requests)
    state, slot = torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool)
    return Step(requests, np.array(positions), [False] * n, state, slot, torch.zeros(n, 2))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [([1, S], 0), ([S, L, L], 2), ([S, L, E], OUTSIDE), ([1, L], OUTSIDE), ([L], OUTSIDE), ([S, 1], OUTSIDE)],
)
def test_span_state_is_read_off_the_tokens(tokens: list[int], expected: int) -> None:
    assert span_state(np.array(tokens), len(tokens) - 1, TOKENS) == expected


def test_slots_that_are_prefilled_again_come_from_the_store() -> None:
    store = store_with(a={3: 3.0, 4: 4.0, 7: 7.0})
    tokens = [1, 2, S, L, L, E, S, L]
    # Chunk [2, 5) of request a behind one row of request b.
    plan = make_plan(batch([("b", [1], 0, 1), ("a", tokens, 2, 3)], [False, True]), None, store, TOKENS)
    assert [(row, latent[0].item()) for row, latent in plan.moved.kept] == [(2, 3.0), (3, 4.0)]
    assert plan.positions.tolist() == [1, 5]
    assert plan.moved.state == [OUTSIDE, OUTSIDE]  # b is outside a span, a is not sampled for
    plan = make_plan(batch([("a", tokens, 5, 3)]), None, store, TOKENS)
    assert [(row, latent[0].item()) for row, latent in plan.moved.kept] == [(2, 7.0)]
    assert plan.moved.state == [1]


def test_a_missing_latent_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"request a: .* position 4"):
        make_plan(batch([("a", [1, 2, S, L, L], 0, 5)]), None, store_with(a={3: 3.0}), TOKENS)


def test_decoding_rows_are_carried_on_the_device() -> None:
    # In the same order nothing is looked up, whatever the host knows of the tokens: async scheduling has -1 there.
    rows = [("a", [1, 2, -1], 2, 1), ("b", [1, 2, 3, -1], 3, 1)]
    plan = make_plan(batch(rows), step(["a", "b"], [2, 3]), store_with(a={}, b={}), TOKENS)
    assert plan.request_ids == ["a", "b"] and plan.positions.tolist() == [3, 4] and plan.moved is None
    # Request b now first, request c new, request a resumed at position 0 after preemption.
    rows = [("b", [1, 2, 3, -1], 3, 1), ("c", [1], 0, 1), ("a", [1, S, L], 0, 3)]
    plan = make_plan(batch(rows), step(["a", "b"], [2, 3]), store_with(a={2: 5.0}, b={}, c={}), TOKENS)
    assert plan.moved.carried == [0] and plan.moved.carried_from == [1]
    assert [(row, latent[0].item()) for row, latent in plan.moved.kept] == [(4, 5.0)]
    assert plan.moved.state == [OUTSIDE, OUTSIDE, 1]


def test_a_finished_request_keeps_nothing() -> None:
    store = store_with(a={0: 1.0})
    del store.requests["a"]
    digest = store.digest
    store.put([("a", 1)], np.ones((1, 2), np.float32))
    assert store.entries == 0 and store.digest == digest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_latents_keep_their_dtype_and_bits(dtype: torch.dtype) -> None:
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    joined = np.concatenate([to_array(latent[None]) for latent in latents])
    output = SimpleNamespace(index=0, finish_reason="stop", routed_experts=joined)
    assert torch.equal(completion_latents(output, 8), latents)
    with pytest.raises(ValueError, match="width 8, not 9"):
        completion_latents(output, 9)


def test_no_slots_and_unfinished_completions() -> None:
    nothing = SimpleNamespace(index=0, finish_reason="length", routed_experts=None)
    assert completion_latents(nothing).shape == (0, 0)
    assert completion_latents(nothing, 8).shape == (0, 8)
    with pytest.raises(ValueError, match="not finished"):
        completion_latents(SimpleNamespace(index=0, finish_reason=None, routed_experts=None))
