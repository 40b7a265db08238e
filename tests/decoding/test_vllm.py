"""vLLM against the oracle, with the engine in this process: text and video, fp32, and the same checks broken on purpose."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from async_on_cpu import asynchronously
from decoding_harness import (
    BF16,
    BLOCK,
    BROKEN,
    CRAMPED,
    NEVER,
    PARITY,
    TIMES,
    V2,
    Agreement,
    Oracle,
    blocking,
    drain,
    in_process,
    preemptions,
    runner_of,
    scheduler_of,
    span_lengths,
    without_keys,
)
from vllm import SamplingParams
from vllm.v1.core import kv_cache_utils

from future_l1_verl import versions
from future_l1_verl.decoding import hf
from future_l1_verl.decoding.vllm import completion_latents, request_options, require_live
from future_l1_verl.decoding.vllm.compatibility import check_config
from future_l1_verl.decoding.vllm.scheduler import _EXTRA_KEYS
from future_l1_verl.decoding.vllm.v1 import sampler
from future_l1_verl.latents.noise import standard_normal
from future_l1_verl.latents.spans import Role
from future_l1_verl.latents.tokens import CONFIG_KEYS, LatentSettings

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def roomy(tiny_checkpoint: str) -> Iterator[Any]:
    with in_process(tiny_checkpoint) as llm:
        yield llm


def params(oracle: Oracle, bias: dict[int, float] | None = None, **changed: Any) -> SamplingParams:
    values = dict(max_tokens=48, temperature=1.0, ignore_eos=True, logprobs=0, logit_bias=oracle.bias | (bias or {}))
    return SamplingParams(**values | changed)


def run(llm: Any, oracle: Oracle, sampling: SamplingParams, times: int = TIMES, **options: Any) -> Agreement:
    """Decodes every prompt several times at once and compares."""
    prompts = oracle.prompts() * times
    outputs = llm.generate([prompt.for_vllm for prompt in prompts], sampling, use_tqdm=False)
    return oracle.compare(outputs, prompts, **options)


def test_three_completions_with_a_shared_prefix(roomy: Any, oracle: Oracle) -> None:
    agreement = run(roomy, oracle, params(oracle, n=3))
    print(agreement)
    assert agreement.worst <= PARITY
    assert agreement.slots > 150 * TIMES
    assert min(agreement.roles.values()) > 10 * TIMES, "every role is compared"
    assert agreement.open_spans > 2 * TIMES, "max_tokens is reached inside spans too"


def test_the_best_log_probs_agree_as_well(roomy: Any, oracle: Oracle) -> None:
    assert run(roomy, oracle, params(oracle, logprobs=5)).worst <= PARITY


def test_prompts_are_shared_and_slots_are_not(roomy: Any, oracle: Oracle) -> None:
    prompt = oracle.prompts()[1]
    length = prompt.inputs["input_ids"].shape[1]
    outputs = roomy.generate([prompt.for_vllm] * 2, params(oracle, n=2), use_tqdm=False)
    # All but the last token of a prompt can be found in the cache, in whole blocks; nothing beyond it can.
    assert [output.num_cached_tokens for output in outputs] == [(length - 1) // BLOCK * BLOCK] * 2 and length > BLOCK


def test_three_rollouts_in_a_row_bring_the_latents_that_were_decoded(roomy: Any, oracle: Oracle) -> None:
    """docs/differences.md, row 7: there latents of every rollout but the first are lost."""
    for _ in range(3):
        agreement = run(roomy, oracle, params(oracle), times=1)
        assert agreement.worst <= PARITY and agreement.slots > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_cuda_graphs_decode_what_eager_mode_decodes(tiny_checkpoint: str, oracle: Oracle) -> None:
    """docs/differences.md, row 12. In bf16, which FlashAttention needs: graphs are as far from the oracle as eager mode."""
    found = {}
    for eager in (True, False):
        with in_process(tiny_checkpoint, dtype="bfloat16", enforce_eager=eager) as llm:
            found[eager] = run(llm, oracle, params(oracle, n=3))
    assert found[True].worst < BF16 and found[False].worst < BF16
    assert found[False].slots > 300


def test_latents_are_written_where_cuda_graphs_read(roomy: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, written = runner_of(roomy), []
    if V2:
        owner, name, buffer = type(runner.spans), "prepare_inputs_embeds", runner.spans.encoder_runner.inputs_embeds
    else:
        owner, name, buffer = type(runner), "_preprocess", runner.inputs_embeds.gpu
    stock = getattr(owner, name)

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepared = stock(self, *args, **kwargs)
        written.append((prepared if V2 else prepared[1]).data_ptr())
        return prepared

    monkeypatch.setattr(owner, name, spied)
    run(roomy, oracle, params(oracle), times=1)
    assert len(written) > 40 and set(written) == {buffer.data_ptr()}


def test_each_runner_that_a_gpu_may_get_has_our_hooks_or_a_reason(roomy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is Triton vLLM has a second runner, the default of newer versions."""
    config = roomy.llm_engine.vllm_config
    for v2 in (True, False):
        monkeypatch.setattr("vllm.envs.VLLM_USE_V2_MODEL_RUNNER", v2, raising=False)
        if v2 and versions.require("vllm") == "train":
            with pytest.raises(ValueError, match=r"V2 model runner of this vLLM: \S+ is not .* VLLM_USE_V2_MODEL_RUNNER=0"):
                check_config(config)
        else:
            check_config(config)


def test_state_is_freed(roomy: Any, oracle: Oracle) -> None:
    """docs/differences.md, row 11."""
    run(roomy, oracle, params(oracle), times=1)
    drain(roomy)
    (status,) = require_live(roomy)
    assert (status["requests"], status["entries"]) == (0, 0)
    assert status["digest"] != 0


@pytest.mark.parametrize("budget", [1, 3, 6])
@pytest.mark.parametrize("fixed", [False, True])
def test_budgets_are_exact(roomy: Any, oracle: Oracle, budget: int, fixed: bool) -> None:
    """docs/differences.md, rows 8 and 13."""
    minimum = budget if fixed else 1
    sampling = params(oracle, n=4, extra_args=request_options(max_latents=budget, min_latents=minimum))
    prompts = oracle.prompts()
    outputs = roomy.generate([prompt.for_vllm for prompt in prompts], sampling, use_tqdm=False)
    agreement = oracle.compare(outputs, prompts, max_latents=budget, min_latents=minimum)
    assert agreement.worst <= PARITY
    settings = LatentSettings(oracle.settings.tokens, budget)
    completions = [completion for output in outputs for completion in output.outputs]
    lengths = [n for completion in completions for n in span_lengths(list(completion.token_ids), settings)]
    # The end token is neither rare nor certain, so that both bounds are met among some two hundred spans.
    assert (min(lengths), max(lengths)) == (minimum, budget)


def test_greedy_decoding_equals_the_oracle_token_by_token(roomy: Any, oracle: Oracle) -> None:
    # Text that never repeats itself into a fixed point would need a trained model; a lower bias gives stops and slots.
    bias = oracle.bias | {oracle.settings.tokens.start: 3.0, oracle.settings.tokens.end: 2.5}
    roles: set[int] = set()
    for prompt in oracle.prompts():
        (output,) = roomy.generate([prompt.for_vllm], params(oracle, bias, temperature=0.0, max_tokens=24), use_tqdm=False)
        with oracle.biased(bias):
            expected = hf.generate(oracle.model, prompt.inputs, oracle.settings, max_new_tokens=24, eos_token_id=None)
        assert list(output.outputs[0].token_ids) == expected.token_ids.tolist()
        roles |= set(expected.layout.roles.tolist())
    assert {Role.TEXT, Role.LATENT_FORCED, Role.LATENT} <= roles


def run_in_two_parts(llm: Any, oracle: Oracle, scale: float = 1.0) -> tuple[Agreement, set[int]]:
    """Cuts answers after 1 to 12 tokens and has them continued, with ``scale`` times the latents so far. Also gives the tokens
    at which they were cut."""
    prompts, width = oracle.prompts() * 12, oracle.model.config.text_config.hidden_size
    cuts = [params(oracle, max_tokens=1 + number // 5) for number in range(len(prompts))]
    firsts = llm.generate([prompt.for_vllm for prompt in prompts], cuts, use_tqdm=False)
    continued, sampling = [], []
    for prompt, output in zip(prompts, firsts, strict=True):
        asked, first = dict(prompt.for_vllm), output.outputs[0]
        asked["prompt_token_ids"] = oracle.processor.tokenizer(asked.pop("prompt")).input_ids + list(first.token_ids)
        continued.append(asked)
        latents = scale * completion_latents(first, width)
        sampling.append(params(oracle, max_tokens=24, extra_args=request_options(prompt_latents=latents)))
    seconds = llm.generate(continued, sampling, use_tqdm=False)
    merged = []
    for output, rest in zip(firsts, seconds, strict=True):
        parts = (output.outputs[0], rest.outputs[0])
        latents = [part.routed_experts for part in parts if part.routed_experts is not None]
        completion = SimpleNamespace(
            index=0,
            finish_reason="length",
            token_ids=[token for part in parts for token in part.token_ids],
            logprobs=[entry for part in parts for entry in part.logprobs],
            routed_experts=np.concatenate(latents) if latents else None,
        )
        merged.append(SimpleNamespace(prompt_token_ids=output.prompt_token_ids, outputs=[completion]))
    return oracle.compare(merged, prompts), {output.outputs[0].token_ids[-1] for output in firsts}


def test_an_answer_that_was_cut_is_continued_as_if_it_had_not_been(roomy: Any, oracle: Oracle) -> None:
    agreement, cut_at = run_in_two_parts(roomy, oracle)
    assert agreement.worst < PARITY
    assert {oracle.settings.tokens.start, oracle.settings.tokens.latent, oracle.settings.tokens.end} <= cut_at
    assert agreement.slots > 100


def test_control_continued_with_other_latents(roomy: Any, oracle: Oracle) -> None:
    assert run_in_two_parts(roomy, oracle, scale=0.5)[0].worst > BROKEN


def test_noise_is_regenerated_for_every_completion(roomy: Any, oracle: Oracle) -> None:
    hidden = oracle.model.config.text_config.hidden_size

    def noise(_request: int, completion: int, positions: torch.Tensor) -> torch.Tensor:
        # vLLM adds the index of a completion to SamplingParams.seed.
        return 0.3 * standard_normal(torch.full_like(positions, 11 + completion), positions, hidden)

    agreement = run(roomy, oracle, params(oracle, n=3, seed=11, extra_args=request_options(sigma=0.3)), noise=noise)
    print(agreement)
    assert agreement.worst <= PARITY
    assert agreement.slots > 150 * TIMES


@pytest.fixture(scope="module")
def cramped(tiny_checkpoint: str) -> Iterator[Any]:
    with in_process(tiny_checkpoint, **CRAMPED) as llm:
        yield llm


def run_cramped(llm: Any, oracle: Oracle, max_tokens: int = 96) -> tuple[Agreement, int, int]:
    """Also the preemptions and re-injections that happened on the way."""
    before, injected = preemptions(llm), require_live(llm)[0]["reinjected"]
    agreement = run(llm, oracle, params(oracle, n=TIMES, max_tokens=max_tokens))
    return agreement, preemptions(llm) - before, require_live(llm)[0]["reinjected"] - injected


def test_preempted_requests_get_their_latents_again(cramped: Any, oracle: Oracle) -> None:
    """docs/differences.md, row 9."""
    agreement, preempted, reinjected = run_cramped(cramped, oracle)
    print(agreement, f"{preempted=} {reinjected=}")
    assert agreement.worst <= PARITY
    assert preempted >= (1 if V2 else 5) and reinjected >= 20


def assert_continued_with_preemptions(llm: Any, oracle: Oracle) -> None:
    before = preemptions(llm)
    assert run_in_two_parts(llm, oracle)[0].worst < PARITY
    assert preemptions(llm) > before


def test_continued_answers_are_preempted_and_prefilled_in_chunks(cramped: Any, oracle: Oracle) -> None:
    assert_continued_with_preemptions(cramped, oracle)


def test_control_without_reinjection(cramped: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runner_of(cramped).spans), "_inject_kept", lambda *_: None)
    agreement, preempted, _ = run_cramped(cramped, oracle)
    print(agreement, f"{preempted=}")
    assert agreement.worst >= BROKEN


def test_control_without_injection(cramped: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runner_of(cramped).spans), "_inject_carried", lambda *_: None)
    agreement, *_ = run_cramped(cramped, oracle, max_tokens=24)
    print(agreement)
    assert agreement.worst >= BROKEN


def run_equal_ids(llm: Any, oracle: Oracle) -> tuple[Agreement, int]:
    """Eight requests with equal prompts and equal response ids, whose latents differ by their noise. And preemptions."""
    tokens, hidden = oracle.settings.tokens, oracle.model.config.text_config.hidden_size
    prompt = oracle.prompts()[2]
    options = [request_options(seed=100 + k, sigma=0.5, max_latents=40, min_latents=40) for k in range(8)]
    samplings = [params(oracle, {tokens.start: 100.0}, max_tokens=120, extra_args=given) for given in options]

    def noise(request: int, _completion: int, positions: torch.Tensor) -> torch.Tensor:
        return 0.5 * standard_normal(torch.full_like(positions, 100 + request), positions, hidden)

    before = preemptions(llm)
    outputs = llm.generate([prompt.for_vllm] * 8, samplings, use_tqdm=False)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == 1
    agreement = oracle.compare(outputs, [prompt] * 8, max_latents=40, min_latents=40, noise=noise)
    return agreement, preemptions(llm) - before


def test_equal_ids_with_different_latents_share_no_blocks(cramped: Any, oracle: Oracle) -> None:
    """docs/differences.md, row 10."""
    agreement, preempted = run_equal_ids(cramped, oracle)
    print(agreement, f"{preempted=}")
    assert agreement.worst <= PARITY
    assert preempted >= 1


def test_control_without_private_blocks(cramped: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache_utils, "generate_block_hash_extra_keys", _EXTRA_KEYS)
    agreement, preempted = run_equal_ids(cramped, oracle)
    print(agreement, f"{preempted=}")
    assert agreement.worst >= BROKEN


def test_a_lost_latent_is_an_error_that_names_it(tiny_checkpoint: str, oracle: Oracle) -> None:
    """docs/differences.md, rows 6 and 11."""
    """On an engine of its own, which does not survive."""
    with in_process(tiny_checkpoint, **CRAMPED) as llm, pytest.MonkeyPatch.context() as patch:
        put = type(runner_of(llm).spans.store).put
        patch.setattr(
            type(runner_of(llm).spans.store),
            "put",
            lambda store, slots, latents: [put(store, [s], latents[[i]]) for i, s in enumerate(slots) if s[1] % 2],
        )
        with pytest.raises(RuntimeError, match=r"request \S+: no latent is kept for the slot at position \d*[02468]$"):
            run(llm, oracle, params(oracle, n=2, max_tokens=96))


@pytest.fixture(scope="module")
def asynchronous(tiny_checkpoint: str) -> Iterator[Any]:
    with asynchronously(), in_process(tiny_checkpoint, **CRAMPED) as llm:
        yield llm


def test_async_scheduling_with_preemption(asynchronous: Any, oracle: Oracle) -> None:
    assert asynchronous.llm_engine.vllm_config.scheduler_config.async_scheduling
    assert type(scheduler_of(asynchronous)).__name__ == "LatentAsyncScheduler"
    agreement, preempted, reinjected = run_cramped(asynchronous, oracle)
    print(agreement, f"{preempted=} {reinjected=}")
    assert agreement.worst <= PARITY
    assert preempted >= (1 if V2 else 5) and reinjected >= 20
    drain(asynchronous)
    assert require_live(asynchronous)[0]["entries"] == 0


@pytest.mark.parametrize("blocks", [(6, 8), (4, 10)])
def test_async_preempted_and_resumed_after_a_step_without_tokens(
    asynchronous: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]
) -> None:
    spans = type(runner_of(asynchronous).spans)
    scheduled, begin = [], spans.begin

    def spied(self: Any, scheduler_output: Any) -> None:
        scheduled.append(scheduler_output.total_num_scheduled_tokens)
        begin(self, scheduler_output)

    monkeypatch.setattr(spans, "begin", spied)
    before = preemptions(asynchronous)
    assert run_blocking(asynchronous, oracle, blocks).worst <= PARITY
    assert preemptions(asynchronous) == before + 1
    assert 0 in scheduled[:-1] and scheduled[scheduled.index(0) + 1] > 1, "resumed right after a step without tokens"


def run_blocking(llm: Any, oracle: Oracle, blocks: tuple[int, int]) -> Agreement:
    prompts, samplings = blocking(oracle, blocks)
    asked = [prompt.for_vllm for prompt in prompts]
    llm.generate(asked, params(oracle, max_tokens=1), use_tqdm=False)  # with cached prompts the two go in step
    agreement = oracle.compare(llm.generate(asked, samplings, use_tqdm=False), prompts, max_latents=40, min_latents=40)
    assert agreement.slots > 30
    return agreement


@pytest.mark.skipif(V2, reason="the V2 runner scores every step, without a look at the rows")
def test_async_nothing_is_scored_unless_a_row_was_in_a_span(
    asynchronous: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, stock = [], sampler._log_not
    monkeypatch.setattr(sampler, "_log_not", lambda log_probs, token: scored.append(token) or stock(log_probs, token))
    never = {oracle.settings.tokens.start: NEVER}
    assert run(asynchronous, oracle, params(oracle, never), times=1).worst <= PARITY
    assert scored == []
    assert run(asynchronous, oracle, params(oracle), times=1).worst <= PARITY
    assert len(scored) > 10


def test_async_continued_answers_are_preempted(asynchronous: Any, oracle: Oracle) -> None:
    assert_continued_with_preemptions(asynchronous, oracle)


def test_control_async_without_reinjection(asynchronous: Any, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runner_of(asynchronous).spans), "_inject_kept", lambda *_: None)
    agreement, *_ = run_cramped(asynchronous, oracle)
    print(agreement)
    assert agreement.worst >= BROKEN


def test_spans_never_open_if_the_start_token_is_not_sampled(roomy: Any, oracle: Oracle) -> None:
    agreement = run(roomy, oracle, params(oracle, {oracle.settings.tokens.start: NEVER}), times=1)
    assert agreement.worst <= PARITY
    assert agreement.slots == 0 and agreement.roles[Role.TEXT] == 5 * 48


# From here on each test has an engine of its own, which ends those of the tests before.


def test_control_a_step_without_tokens_that_is_taken_for_one_with_them(tiny_checkpoint: str, oracle: Oracle) -> None:
    """On an engine of its own, which does not survive."""
    with asynchronously(), in_process(tiny_checkpoint, **CRAMPED) as llm, pytest.MonkeyPatch.context() as patch:
        spans = type(runner_of(llm).spans)
        begin = spans.begin

        def mistaken(self: Any, scheduler_output: Any) -> None:
            seen = copy.copy(scheduler_output)
            seen.total_num_scheduled_tokens = max(1, seen.total_num_scheduled_tokens)
            begin(self, seen)

        patch.setattr(spans, "begin", mistaken)
        with pytest.raises(RuntimeError, match="no latent is kept for the slot"):
            run_blocking(llm, oracle, (6, 8))


def run_truncated(checkpoint: str, oracle: Oracle) -> Agreement:
    """With top-p, and log-probs of what is sampled from: the bias and the temperature are part of it, truncation is not."""
    prompts = oracle.prompts() * TIMES
    sampling = params(oracle, temperature=0.7, top_p=0.9, max_tokens=24)
    with in_process(checkpoint, logprobs_mode="processed_logprobs") as llm, pytest.MonkeyPatch.context() as patch:
        # vLLM then truncates with torch, in place as well: Triton's interpreter cannot run the kernel.
        patch.setattr("vllm.v1.sample.ops.topk_topp_sampler.HAS_TRITON", False)
        outputs = llm.generate([prompt.for_vllm for prompt in prompts], sampling, use_tqdm=False)
    with oracle.biased(oracle.bias):
        return oracle.compare(outputs, prompts, temperature=0.7)


def test_truncated_sampling_is_scored_by_the_whole_distribution(tiny_checkpoint: str, oracle: Oracle) -> None:
    agreement = run_truncated(tiny_checkpoint, oracle)
    assert agreement.worst <= PARITY
    assert agreement.slots > 10 * TIMES and agreement.roles[Role.TEXT] > 10 * TIMES


def test_control_scored_by_the_truncated_distribution(
    tiny_checkpoint: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if V2:
        from future_l1_verl.decoding.vllm.v2.sampler import LatentSampler

        monkeypatch.delattr(LatentSampler, "sample")
    else:
        monkeypatch.setattr(sampler, "_score_before_truncation", lambda stock: None)
    assert run_truncated(tiny_checkpoint, oracle).logprobs >= BROKEN


def test_bfloat16_latents_arrive_as_bfloat16(tiny_checkpoint: str, oracle: Oracle) -> None:
    # Texts alone under Triton's interpreter, in which the vision tower's own kernel makes NaN of bfloat16.
    prompts = oracle.prompts()[: 3 if V2 else None]
    with in_process(tiny_checkpoint, dtype="bfloat16", **CRAMPED) as llm:
        outputs = llm.generate([prompt.for_vllm for prompt in prompts] * 2, params(oracle, n=2), use_tqdm=False)
        assert preemptions(llm) >= 1
    for output, prompt in zip(outputs, prompts * 2, strict=True):
        for completion in output.outputs:
            ids, latents = torch.tensor(list(completion.token_ids)), completion_latents(completion)
            assert latents.dtype is torch.bfloat16
            assert len(latents) == (ids == oracle.settings.tokens.latent).sum()
            # Eight bits of mantissa through four layers: close to the fp32 oracle, which reads the same latents.
            expected = hf.score(oracle.model, prompt.inputs, ids, latents.float(), oracle.settings)
            assert torch.cosine_similarity(latents.float(), expected.hidden).min() > 0.99


def test_an_engine_without_hooks_is_found_out(tiny_checkpoint: str, tmp_path: Path) -> None:
    plain = dict(worker_cls="auto", scheduler_cls=None, additional_config={})
    checkpoint = without_keys(tiny_checkpoint, tmp_path / "plain", *CONFIG_KEYS)
    with (
        in_process(tiny_checkpoint, model=checkpoint, **plain) as llm,
        pytest.raises(RuntimeError, match="does not decode latent spans"),
    ):
        require_live(llm)
