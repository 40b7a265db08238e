"""What is accepted and refused before the first token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from decoding_harness import BLOCK, in_process
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine import EngineCoreRequest

from future_l1_verl import versions
from future_l1_verl.decoding.vllm import compatibility, engine_arguments, request_options
from future_l1_verl.decoding.vllm.scheduler import LatentAsyncScheduler, LatentScheduler, check_request
from future_l1_verl.decoding.vllm.settings import EngineSettings, SpanOptions
from future_l1_verl.decoding.vllm.wire import to_text
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens

TOKENS = LatentTokens(start=10, latent=11, end=12)
ENGINE = EngineSettings(TOKENS, SpanOptions(max_latents=4), hidden_size=8, max_model_len=100, asynchronous=False)


@given(st.integers(-2, 9), st.integers(-2, 9), st.floats(allow_nan=True, allow_infinity=True))
def test_options_are_accepted_exactly_if_they_make_sense(maximum: int, minimum: int, sigma: float) -> None:
    sensible = 1 <= minimum <= maximum and 0 <= sigma <= 1000
    if sensible:
        SpanOptions(maximum, minimum, sigma)
    else:
        with pytest.raises(ValueError, match=r"min_latents|sigma"):
            SpanOptions(maximum, minimum, sigma)


def test_engine_arguments_carry_the_checkpoint_budget_unless_told_otherwise(tiny_checkpoint: str) -> None:
    budget = LatentSettings.from_checkpoint(tiny_checkpoint).max_latents
    given_nothing = engine_arguments(tiny_checkpoint)
    options = {"max_latents": budget, "min_latents": 1, "sigma": 0.0, "spans": True, "return_latents": True}
    assert given_nothing["additional_config"] == {"latent": options}
    assert "async_scheduling" not in given_nothing
    told = engine_arguments(tiny_checkpoint, max_latents=9, min_latents=9, sigma=0.5, async_scheduling=False)
    assert told["additional_config"] == {"latent": options | {"max_latents": 9, "min_latents": 9, "sigma": 0.5}}
    assert told["async_scheduling"] is False


def test_engine_arguments_refuse_a_checkpoint_without_latents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="latent_token_id"):
        engine_arguments(str(tmp_path))


def test_engine_arguments_refuse_an_impossible_budget(tiny_checkpoint: str) -> None:
    with pytest.raises(ValueError, match="min_latents"):
        engine_arguments(tiny_checkpoint, max_latents=0)


def test_importing_the_package_does_not_import_vllm() -> None:
    program = "import sys, future_l1_verl.decoding.vllm; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0


def test_a_request_overrides_the_options_that_it_names() -> None:
    params = SamplingParams(seed=3, extra_args=request_options(max_latents=8, sigma=0.5))
    assert ENGINE.of_request(params) == SpanOptions(max_latents=8, min_latents=1, sigma=0.5, seed=3)
    params = SamplingParams(seed=3, extra_args=request_options(seed=5))
    assert ENGINE.of_request(params) == SpanOptions(max_latents=4, seed=5)
    assert ENGINE.of_request(SamplingParams()) == SpanOptions(max_latents=4)


def continuing(latents: int) -> dict[str, Any]:
    return request_options(prompt_latents=torch.zeros(latents, 8))


def shaped(shape: str) -> dict[str, Any]:
    """Latents of a client that does not use `request_options`."""
    return {"latent": {"prompt_latents": f"{shape}:{to_text(torch.zeros(1, 8)).split(':')[1]}"}}


def request(prompt: list[int] | None = None, resumable: bool = False, **params: Any) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id="r7",
        prompt_token_ids=[1, 2] if prompt is None else prompt,
        mm_features=None,
        sampling_params=SamplingParams(**params),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        resumable=resumable,
    )


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (request(structured_outputs=StructuredOutputsParams(regex="a")), "structured output"),
        (request(logprobs=-1), "log-probs"),
        (request(allowed_token_ids=[TOKENS.latent]), "alone"),
        (request(prompt=[1, TOKENS.start, TOKENS.latent, TOKENS.end]), "prompt holds 1 .* with 0 latents"),
        (request(prompt=[1, TOKENS.start, TOKENS.latent], extra_args=continuing(2)), "prompt holds 1 .* with 2 latents"),
        (request(extra_args=continuing(1)), "prompt holds 0 .* with 1 latents"),
        (request(prompt=[1, TOKENS.start]), "prompt ends"),
        (request(prompt=[TOKENS.start, TOKENS.latent], extra_args=shaped("1x8x1")), "ROWSxCOLUMNS"),
        (request(prompt=[TOKENS.start, TOKENS.latent], extra_args=shaped("8")), "ROWSxCOLUMNS"),
        (request(resumable=True), "streamed input"),
        (request(extra_args=request_options(min_latents=5)), "min_latents"),
        (request(extra_args={"latent": {"max_latent": 5}}), "unknown latent option max_latent"),
        (request(extra_args={"return_latent": True}), "'return_latent'; did you mean return_latents"),
        (request(extra_args={"latents": {}}), "'latents'; did you mean latent"),
        (request(extra_args={"max_latents": 2}), "'max_latents'; did you mean max_latents within latent"),
        (request(extra_args={"prompt_latent": ""}), "'prompt_latent'; did you mean prompt_latents within latent"),
        (request(extra_args={"return_latents": "false"}), "return_latents must be true or false"),
        (request(extra_args=request_options(sigma=0.1)), "needs a seed"),
        # What would end the worker, as a client may send it.
        (request(extra_args={"latent": '{"seed": "x"}'}), "seed must be"),
        (request(extra_args={"latent": {"seed": 2**63}}), "seed must be"),
        (request(extra_args={"latent": {"max_latents": 2**31}}), "max_latents must be"),
        (request(extra_args={"latent": {"max_latents": 2.5}}), "max_latents must be"),
        (request(extra_args={"latent": {"sigma": "1"}}), "sigma must be"),
        (request(extra_args={"latent": "[1]"}), "a mapping"),
        (request(extra_args={"latent": "{"}), "JSON|property name"),
        (request(extra_args={"latent": {"intervene": "swap"}}), "not 'swap'"),
        (request(extra_args={"latent": {"intervene": "given", "given": "1x8:"}}), "wire.to_text"),
        (
            request(extra_args=request_options(intervention=Intervention("given", torch.zeros(1, 9)))),
            r"shape \[1, 9\], not \[k, 8\]",
        ),
    ],
)
def test_a_request_that_cannot_work_is_refused_by_name(refused: EngineCoreRequest, reason: str) -> None:
    with pytest.raises(ValueError, match=f"request r7: .*{reason}"):
        check_request(refused, ENGINE)


def test_ordinary_requests_pass() -> None:
    check_request(request(), ENGINE)
    check_request(request(prompt=[TOKENS.start, TOKENS.end, 1], logprobs=5), ENGINE)
    check_request(request(prompt=[1, TOKENS.start], extra_args=continuing(0)), ENGINE)
    check_request(request(prompt=[1, TOKENS.start, TOKENS.latent], extra_args=continuing(1)), ENGINE)
    check_request(request(seed=1, extra_args=request_options(sigma=0.1)), ENGINE)
    check_request(request(extra_args={"kv_transfer_params": {}, "ngram_size": 35, "window_size": 128}), ENGINE)


def vllm_config(**changed: Any) -> Any:
    """The fields of a VllmConfig that are looked at, all of them fine, with some changed."""
    model = dict(
        enable_return_routed_experts=False, logprobs_mode="processed_logprobs", is_multimodal_model=True,
        return_sampling_mask=False, enable_trace_replay=False,
    )  # fmt: skip
    parallel = dict(pipeline_parallel_size=1, enable_batch_sharded_sampling=False, prefill_context_parallel_size=1)
    parts = dict(
        parallel_config=SimpleNamespace(**parallel),
        watermark_config=None,
        model_config=SimpleNamespace(**model),
        scheduler_config=SimpleNamespace(async_scheduling=False),
        speculative_config=None,
        use_v2_model_runner=False,
    )
    for name, value in changed.items():
        if name in model:
            setattr(parts["model_config"], name, value)
        elif name in parallel:
            setattr(parts["parallel_config"], name, value)
        elif name == "async_scheduling":
            parts["scheduler_config"].async_scheduling = value
        else:
            parts[name] = value
    return SimpleNamespace(**parts)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline parallel"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"enable_return_routed_experts": True}, "enable_return_routed_experts"),
        ({"logprobs_mode": "raw_logits"}, "logprobs_mode=raw_logits"),
        ({"is_multimodal_model": False}, "inputs_embeds"),
    ],
)
def test_an_engine_that_cannot_work_is_refused_with_the_reason(changed: dict[str, Any], reason: str) -> None:
    compatibility.check_config(vllm_config())
    with pytest.raises(ValueError, match=reason):
        compatibility.check_config(vllm_config(**changed))


@pytest.mark.skipif(versions.require("vllm") == "train", reason="this vLLM's V2 runner is refused altogether")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"enable_batch_sharded_sampling": True}, "sharded by requests"),
        ({"prefill_context_parallel_size": 2}, "prefill context parallel"),
        ({"watermark_config": object()}, "watermark"),
        ({"return_sampling_mask": True}, "return_sampling_mask"),
        ({"enable_trace_replay": True}, "enable_trace_replay"),
    ],
)
def test_what_only_the_v2_runner_does_is_refused(changed: dict[str, Any], reason: str) -> None:
    compatibility.check_config(vllm_config(use_v2_model_runner=True))
    with pytest.raises(ValueError, match=reason):
        compatibility.check_config(vllm_config(use_v2_model_runner=True, **changed))


@pytest.mark.parametrize(("scheduler", "wrong"), [(LatentScheduler, True), (LatentAsyncScheduler, False)])
def test_a_scheduler_of_the_other_kind_is_refused(scheduler: type, wrong: bool) -> None:
    with pytest.raises(ValueError, match=f"is for async_scheduling={not wrong}"):
        scheduler(vllm_config(async_scheduling=wrong))


@pytest.mark.parametrize("room", [6 * BLOCK, 6 * BLOCK + 1])
def test_an_engine_that_could_not_hold_its_longest_request_is_refused(tiny_checkpoint: str, room: int) -> None:
    """One block of six is vLLM's own: with tokens for the sixth stock vLLM starts, and preempts such a request for ever."""
    with (
        pytest.raises(ValueError, match="KV cache"),
        in_process(tiny_checkpoint, num_gpu_blocks_override=6, max_model_len=room),
    ):
        pass


def test_the_installed_vllm_is_the_tested_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/differences.md, row 12."""
    compatibility.check_vllm()

    class Sampler:
        def __init__(self, mode: str, needed: int) -> None: ...

        def gather_logprobs(self, logprobs: Any, more: int = 0) -> None: ...

        def forward(self, token_ids: Any) -> None: ...

    seams = [
        (Sampler, "gather_logprobs", ("self", "logprobs")),
        (Sampler, "forward", ("self", "logits")),
        (Sampler, "__init__", ("self", "mode")),
        (Sampler, "sample", ("self",)),
    ]
    monkeypatch.setattr(compatibility, "SEAMS", seams)
    found = (
        r"^Sampler.forward takes .*'token_ids'\) in .*; Sampler.__init__ takes .*; Sampler.sample is not in this vLLM; reinst"
    )
    with pytest.raises(RuntimeError, match=found):
        compatibility.check_vllm()
