"""Replaced tokens and log-probs by role, on a vocabulary of six."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.sampling import SpanRows, decide, opened
from future_l1_verl.decoding.vllm.store import OUTSIDE
from future_l1_verl.decoding.vllm.v1 import sampler
from future_l1_verl.decoding.vllm.v1.sampler import LatentSampler, _log_not
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentTokens

TOKENS = LatentTokens(start=3, latent=4, end=5)
# p of the six tokens: 0.4 0.1 0.1 0.1 0.1 0.2
PROBABILITIES = torch.tensor([0.4, 0.1, 0.1, 0.1, 0.1, 0.2])


@given(
    sampled=st.lists(st.sampled_from([0, 1, TOKENS.start, TOKENS.end]), max_size=40),
    budget=st.integers(1, 4),
    data=st.data(),
)
def test_decided_tokens_have_the_roles_of_the_layout(sampled: list[int], budget: int, data: st.DataObject) -> None:
    minimum = data.draw(st.integers(1, budget))
    state, ids, roles = torch.tensor([OUTSIDE]), [], []
    for token in sampled:
        in_span, given = state.item() >= 0, torch.tensor([token])
        got = decide(given, rows_of(state.tolist(), minimum, budget), TOKENS)
        if not in_span:
            assert torch.equal(got.state, opened(torch.tensor([token]), TOKENS))
        ids.append(int(given))
        state = got.state
        if bool(got.slot):
            roles.append(Role.LATENT_FORCED if bool(got.forced) else Role.LATENT)
        elif in_span:
            roles.append(Role.STOP_FORCED if bool(got.forced) else Role.STOP)
        else:
            roles.append(Role.TEXT)
            assert ids[-1] == token
    layout = response_layout(torch.tensor(ids, dtype=torch.int64), TOKENS, budget, minimum)
    assert layout.roles.tolist() == roles


def sample(
    rows: SpanRows | None,
    greedy: Tensor,
    mode: str = "raw_logprobs",
    temperature: float = 1.0,
    best: int = 0,
    spans: bool = True,
) -> tuple[SamplerOutput, Tensor]:
    """Samples one row per entry of ``greedy``, which names the token to be sampled; returns the logits as well."""
    n = len(greedy)
    latent = LatentSampler(Sampler(mode), TOKENS, spans)
    latent.turn.rows = rows
    logits = PROBABILITIES.log().repeat(n, 1)
    # A bias far above the rest makes the choice certain without touching raw log-probs.
    metadata = SamplingMetadata(
        temperature=torch.full((n,), temperature),
        all_greedy=False,
        all_random=True,
        top_p=None,
        top_k=None,
        generators={},
        max_num_logprobs=best,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=torch.zeros(n),
        presence_penalties=torch.zeros(n),
        repetition_penalties=torch.ones(n),
        output_token_ids=[[] for _ in range(n)],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )
    latent.topk_topp_sampler.forward = lambda logits, *_: (  # type: ignore[method-assign]
        greedy.clone(),
        logits.log_softmax(-1) if mode == "processed_logprobs" else None,
    )
    return latent(logits, metadata), logits


def rows_of(state: list[int], minimum: int = 1, maximum: int = 3) -> SpanRows:
    before, n = torch.tensor(state), len(state)
    return SpanRows(before, before < 0, torch.full((n,), minimum), torch.full((n,), maximum), any(k > 0 for k in state))


def test_log_probs_by_role() -> None:
    # outside; first slot (forced); free, goes on; free, stops; at the budget (forced)
    rows = rows_of([OUTSIDE, 0, 1, 2, 3])
    output, _ = sample(rows, torch.tensor([1, 0, 0, TOKENS.end, 0]))
    assert output.sampled_token_ids[:, 0].tolist() == [1, TOKENS.latent, TOKENS.latent, TOKENS.end, TOKENS.end]
    # Outside, <|latent|> (0.1) is impossible: 0.1 / 0.9. Inside nothing is masked: 1 - 0.2 and 0.2.
    expected = [math.log(0.1 / 0.9), 0.0, math.log(0.8), math.log(0.2), 0.0]
    assert output.logprobs_tensors.logprobs[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert output.logprobs_tensors.logprob_token_ids[:, 0].tolist() == output.sampled_token_ids[:, 0].tolist()


@given(st.floats(-60, 60))
def test_going_on_is_exact_near_0_and_near_1(gap: float) -> None:
    # Logits ``gap`` for the end token and 0 for two others: 1 - p = 2 / (e^gap + 2), which 1 - exp(log p) loses for a large
    # gap.
    value = _log_not(torch.tensor([[0.0, gap, 0.0]]).log_softmax(-1), 1)
    assert float(value) == pytest.approx(math.log(2) - math.log(math.exp(gap) + 2), rel=1e-5, abs=1e-6)


def test_no_row_is_scored_where_none_has_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    monkeypatch.setattr(sampler, "_log_not", lambda log_probs, token: scored.append(token) or _log_not(log_probs, token))
    output, _ = sample(rows_of([OUTSIDE, 0]), torch.tensor([1, TOKENS.end]))
    assert output.logprobs_tensors.logprobs[0, 0].item() == pytest.approx(math.log(0.1 / 0.9), abs=1e-6)
    assert output.logprobs_tensors.logprobs[1, 0].item() == 0.0
    assert scored == []
    sample(rows_of([OUTSIDE, 1]), torch.tensor([1, 0]))
    assert scored == [TOKENS.end]


def test_processed_log_probs_are_those_at_the_temperature() -> None:
    output, _ = sample(rows_of([OUTSIDE, 1, 1]), torch.tensor([0, 0, TOKENS.end]), "processed_logprobs", 0.5)
    # p ** 2: 0.16, four times 0.01, 0.04; together 0.24, without <|latent|> 0.23.
    expected = [math.log(0.16 / 0.23), math.log(0.20 / 0.24), math.log(0.04 / 0.24)]
    assert output.logprobs_tensors.logprobs[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_without_a_row_in_a_span_it_is_vllm_s_sampler() -> None:
    sampled = torch.tensor([0, TOKENS.end, TOKENS.start])
    output, logits = sample(None, sampled)
    assert output.sampled_token_ids[:, 0].tolist() == sampled.tolist()
    assert torch.equal(output.logprobs_tensors.logprobs[:, 0], PROBABILITIES.log().log_softmax(-1)[sampled])
    assert torch.equal(logits, PROBABILITIES.log().expand(3, -1))


def test_the_best_log_probs_say_the_same_of_a_replaced_token() -> None:
    output, _ = sample(rows_of([1]), torch.tensor([0]), best=6)
    ids, values = output.logprobs_tensors.logprob_token_ids[0], output.logprobs_tensors.logprobs[0]
    assert ids[0] == TOKENS.latent and (ids == TOKENS.latent).sum() == 2
    assert values[ids == TOKENS.latent].tolist() == pytest.approx([math.log(0.8)] * 2, abs=1e-6)
    assert values[ids == TOKENS.end].item() == pytest.approx(math.log(0.2), abs=1e-6)


def test_the_latent_token_cannot_be_sampled_outside_a_span() -> None:
    _, logits = sample(rows_of([OUTSIDE, 1]), torch.tensor([0, 0]))
    assert logits[0, TOKENS.latent] == -math.inf
    assert torch.isfinite(logits[1]).all()


def test_log_probs_are_those_of_the_whole_distribution_though_it_is_truncated() -> None:
    latent = LatentSampler(Sampler("processed_logprobs"), TOKENS)
    logits = PROBABILITIES.log().repeat(50, 1)
    sampled, scores = latent.topk_topp_sampler(logits.clone(), {}, None, torch.full((50,), 0.5))
    torch.testing.assert_close(scores, logits)
    # Upstream's own: what is cut off has no probability, and the rest is larger.
    _, truncated = Sampler("processed_logprobs").topk_topp_sampler(logits.clone(), {}, None, torch.full((50,), 0.5))
    assert truncated.isinf().any() and bool((truncated.gather(1, sampled[:, None]) > scores.gather(1, sampled[:, None])).all())


def test_without_spans_the_start_token_is_impossible() -> None:
    """Beside a row that continues a span of its prompt."""
    output, logits = sample(rows_of([OUTSIDE, 1]), torch.tensor([1, 0]), spans=False)
    assert logits[0, TOKENS.start] == float("-inf")
    _, allowed = sample(rows_of([OUTSIDE, 1]), torch.tensor([1, 0]))
    assert allowed[0, TOKENS.start] > float("-inf")
    # p(1) = 0.1 of what neither start nor <|latent|> takes.
    rest = 1 - float(PROBABILITIES[TOKENS.start]) - float(PROBABILITIES[TOKENS.latent])
    assert float(output.logprobs_tensors.logprobs[0, 0]) == pytest.approx(math.log(float(PROBABILITIES[1]) / rest), abs=1e-6)
