"""Refuses, before the first token, what latent spans cannot work with: other vLLM versions and impossible settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from future_l1_verl import versions
from future_l1_verl.decoding.vllm.decoder import LatentAsyncOutput

LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")

# Parameters, in order, of everything in vLLM that is overridden or wrapped here; a version may have more of them behind these,
# with defaults, which are handed on.
SIGNATURES: dict[Callable[..., Any], tuple[str, ...]] = {
    LogitsProcessor.forward: ("self", "lm_head", "hidden_states", "embedding_bias"),
    GPUModelRunner.load_model: ("self", "load_dummy_weights"),
    GPUModelRunner.execute_model: ("self", "scheduler_output", "intermediate_tensors"),
    GPUModelRunner._preprocess: ("self", "scheduler_output", "num_input_tokens", "intermediate_tensors"),
    GPUModelRunner._sample: ("self", "logits", "spec_decode_metadata"),
    GPUModelRunner.sample_tokens: ("self", "grammar_output"),
    Sampler.__init__: ("self", "logprobs_mode", "use_fp64_gumbel"),
    Sampler.forward: ("self", "logits", "sampling_metadata", "predict_bonus_token", "logprobs_mode_override"),
    Sampler.gather_logprobs: ("logprobs", "num_logprobs", "token_ids"),
    Scheduler.update_from_output: ("self", "scheduler_output", "model_runner_output"),
    Request.from_engine_core_request.__func__: ("cls", "request", "block_hasher"),
    kv_cache_utils.generate_block_hash_extra_keys: (
        "request",
        "start_token_idx",
        "end_token_idx",
        "start_mm_idx",
    ),
}


def check_vllm() -> None:
    """Raises UnsupportedVersion unless the installed vLLM is the tested one, and RuntimeError if it is not what it says.

    The signatures are read as well: a patched or vendored vLLM keeps its version number.
    """
    versions.require("vllm")
    for function, expected in SIGNATURES.items():
        found = inspect.signature(function).parameters
        more = list(found.values())[len(expected) :]
        if tuple(found)[: len(expected)] != expected or any(parameter.default is parameter.empty for parameter in more):
            raise RuntimeError(
                f"{function.__qualname__} takes {tuple(found)} in this vLLM, {expected} in tested ones; reinstall it unpatched"
            )
    if LatentAsyncOutput.__abstractmethods__:
        raise RuntimeError(f"this vLLM wants more of an output: {', '.join(sorted(LatentAsyncOutput.__abstractmethods__))}")


def check_config(vllm_config: VllmConfig) -> None:
    """Raises ValueError listing every setting of the engine that latent spans cannot work with, each with the reason."""
    parallel = vllm_config.parallel_config
    model = vllm_config.model_config
    reasons = []
    if parallel.pipeline_parallel_size > 1:
        reasons.append("pipeline parallel: a latent of the last stage would have to reach the first one within a step")
    if vllm_config.speculative_config is not None:
        reasons.append("speculative decoding: a draft cannot propose a latent")
    if vllm_config.use_v2_model_runner:
        reasons.append("the V2 model runner: latents are injected in the V1 runner; set VLLM_USE_V2_MODEL_RUNNER=0")
    # 0.32 has it in a config of its own.
    if getattr(vllm_config, "aux_output_config", model).enable_return_routed_experts:
        reasons.append("enable_return_routed_experts: latents leave the engine in the field it fills")
    if model.logprobs_mode not in LOGPROBS_MODES:
        reasons.append(f"logprobs_mode={model.logprobs_mode}: log-probs by role need {' or '.join(LOGPROBS_MODES)}")
    if not model.is_multimodal_model:
        reasons.append("a text-only model: vLLM feeds it token ids, a latent needs inputs_embeds")
    if reasons:
        raise ValueError("latent spans do not work with " + "; ".join(reasons))
