"""Latents replaced while vLLM decodes: what is returned is the replacement, and what follows is what the oracle makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from decoding_harness import BROKEN, CRAMPED, PARITY, TIMES, Oracle, in_process, preemptions, runner_of
from vllm import SamplingParams

from future_l1_verl.decoding import hf
from future_l1_verl.decoding.vllm import completion_latents, request_options
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.noise import standard_normal
from future_l1_verl.latents.spans import Layout, response_layout

pytestmark = pytest.mark.engine

DONOR = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
Expected = Callable[[torch.Tensor, Layout, int], torch.Tensor]


@pytest.fixture(scope="module")
def llm(tiny_checkpoint: str) -> Iterator[Any]:
    """Requests are preempted, so that replaced latents are injected again."""
    with in_process(tiny_checkpoint, **CRAMPED) as engine:
        yield engine


def params(oracle: Oracle, intervention: Intervention | None) -> SamplingParams:
    extra = request_options(intervention=intervention, max_latents=5)
    return SamplingParams(max_tokens=72, temperature=1.0, ignore_eos=True, logprobs=0, logit_bias=oracle.bias, extra_args=extra)


def zeros(hidden: torch.Tensor, layout: Layout, prompt: int) -> torch.Tensor:
    return torch.zeros_like(hidden)


def given(hidden: torch.Tensor, layout: Layout, prompt: int) -> torch.Tensor:
    return DONOR[torch.arange(len(hidden)) % len(DONOR)]


def noise(hidden: torch.Tensor, layout: Layout, prompt: int) -> torch.Tensor:
    positions = prompt + layout.slots.nonzero()[:, 0]
    direction = standard_normal(torch.full_like(positions, 7), positions, hidden.shape[1])
    return direction * (hidden.norm(dim=1) / direction.norm(dim=1))[:, None]


def frozen(hidden: torch.Tensor, layout: Layout, prompt: int) -> torch.Tensor:
    lengths = (layout.spans[:, 1] - layout.spans[:, 0]).tolist()
    return torch.cat([span[:1].expand(len(span), -1) for span in hidden.split(lengths)]) if lengths else hidden


CASES = [
    (Intervention("zero"), zeros),
    (Intervention("given", DONOR), given),
    (Intervention("noise", seed=7), noise),
    (Intervention("freeze"), frozen),
]


def compare(llm: Any, oracle: Oracle, intervention: Intervention, expected: Expected) -> tuple[float, float, int]:
    """Largest differences of returned latents from ``expected`` (of the hidden states that feed them), and of log-probs from
    the oracle's with the returned latents; number of slots. Beside intact answers in the same batch, which are as ever."""
    prompts = oracle.prompts() * TIMES
    sampling = [params(oracle, intervention if i % 2 else None) for i in range(2 * len(prompts))]
    asked = [prompt for prompt in prompts for _ in range(2)]
    outputs = llm.generate([prompt.for_vllm for prompt in asked], sampling, use_tqdm=False)
    assert oracle.compare(outputs[::2], asked[::2], max_latents=5).worst <= PARITY
    worst, slots = 0.0, 0
    agreement = oracle.compare(outputs[1::2], asked[1::2], max_latents=5)
    for output in outputs[1::2]:
        (completion,) = output.outputs
        ids, latents = torch.tensor(list(completion.token_ids)), completion_latents(completion, DONOR.shape[1])
        prompt = next(p for p in asked if p.inputs["input_ids"][0].tolist() == output.prompt_token_ids)
        read = hf.score(oracle.model, prompt.inputs, ids, latents, oracle.settings)
        layout = response_layout(ids, oracle.settings.tokens, 5)
        if len(latents):
            worst = max(worst, (latents - expected(read.hidden, layout, len(output.prompt_token_ids))).abs().max().item())
        slots += len(latents)
    return worst, agreement.logprobs, slots


@pytest.mark.parametrize(("intervention", "expected"), CASES, ids=[case.kind for case, _ in CASES])
def test_what_is_put_in_is_what_was_asked_for(llm: Any, oracle: Oracle, intervention: Intervention, expected: Expected) -> None:
    before = preemptions(llm)
    latents, logprobs, slots = compare(llm, oracle, intervention, expected)
    print(f"{intervention.kind}: {latents=:.1e} {logprobs=:.1e} {slots=} preempted={preemptions(llm) - before}")
    assert latents <= PARITY and logprobs <= PARITY
    assert slots > 25 * TIMES
    assert preemptions(llm) > before


def test_control_returned_but_not_put_in(llm: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle notices when the next step does not get the replacement."""
    monkeypatch.setattr(type(runner_of(llm).spans), "_inject_carried", lambda *_: None)
    _, logprobs, _ = compare_without_intact(llm, oracle, Intervention("given", DONOR * 3))
    assert logprobs >= BROKEN


def compare_without_intact(llm: Any, oracle: Oracle, intervention: Intervention) -> tuple[float, float, int]:
    prompts = oracle.prompts()
    outputs = llm.generate([p.for_vllm for p in prompts], params(oracle, intervention), use_tqdm=False)
    agreement = oracle.compare(outputs, prompts, max_latents=5)
    return agreement.latents, agreement.logprobs, agreement.slots


def test_dropped_spans_are_closed_as_they_open(llm: Any, oracle: Oracle) -> None:
    tokens, prompts = oracle.settings.tokens, oracle.prompts()
    outputs = llm.generate([p.for_vllm for p in prompts], params(oracle, Intervention("drop")), use_tqdm=False)
    opened = 0
    for output, prompt in zip(outputs, prompts, strict=True):
        (completion,) = output.outputs
        ids = torch.tensor(list(completion.token_ids))
        assert tokens.latent not in ids and completion_latents(completion).numel() == 0
        layout = response_layout(ids, tokens, max_latents=0, min_latents=0)
        after = layout.forced
        assert torch.equal(after[1:], ids[:-1] == tokens.start) and (ids[after] == tokens.end).all()
        opened += int(after.sum())
        reported = torch.tensor([row[token].logprob for row, token in zip(completion.logprobs, ids.tolist(), strict=True)])
        assert (reported[after] == 0).all()
        with oracle.biased({}):
            read = hf.score(oracle.model, prompt.inputs, ids, torch.empty(0, DONOR.shape[1]), oracle.settings)
        assert (reported - read.logprobs)[~after].abs().max() <= PARITY
    assert opened > 10


def test_latents_come_back_to_those_who_want_them(llm: Any, oracle: Oracle) -> None:
    prompt = oracle.prompts()[1].for_vllm
    sampling = [params(oracle, None) for _ in range(2)]
    sampling[1].extra_args |= request_options(return_latents=False)
    with_latents, without = (output.outputs[0] for output in llm.generate([prompt] * 2, sampling, use_tqdm=False))
    assert len(completion_latents(with_latents)) == list(with_latents.token_ids).count(oracle.settings.tokens.latent) > 0
    assert without.routed_experts is None and oracle.settings.tokens.latent in without.token_ids
