"""Refuses, before the first token, what latent spans cannot work with: other vLLM versions and impossible settings."""

from importlib import import_module
from types import ModuleType

from vllm.config import VllmConfig
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from future_l1_verl import versions
from future_l1_verl.decoding.vllm.outputs import LatentAsyncOutput
from future_l1_verl.seams import Seam, different

LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs")

SEAMS: list[Seam] = [
    (Scheduler, "update_from_output", ("self", "scheduler_output", "model_runner_output")),
    (Request, "from_engine_core_request", ("request", "block_hasher")),
    (
        kv_cache_utils,
        "generate_block_hash_extra_keys",
        ("request", "start_token_idx", "end_token_idx", "start_mm_idx"),
    ),
]


def check_vllm() -> None:
    """Raises UnsupportedVersion unless the installed vLLM is a tested one, and RuntimeError if it is not what it says."""
    versions.require("vllm")
    if differences := list(different(SEAMS, "vLLM")):
        raise RuntimeError(f"{'; '.join(differences)}; reinstall it unpatched")
    if LatentAsyncOutput.__abstractmethods__:
        raise RuntimeError(f"this vLLM wants more of an output: {', '.join(sorted(LatentAsyncOutput.__abstractmethods__))}")


def generation(vllm_config: VllmConfig) -> ModuleType:
    """Returns the package, `v1` or `v2`, that gives spans to the model runner that this engine uses."""
    return import_module(f"future_l1_verl.decoding.vllm.{'v2' if vllm_config.use_v2_model_runner else 'v1'}")


def check_config(vllm_config: VllmConfig) -> None:
    """Raises ValueError listing every setting of the engine that latent spans cannot work with, each with the reason."""
    parallel = vllm_config.parallel_config
    model = vllm_config.model_config
    reasons = []
    if parallel.pipeline_parallel_size > 1:
        reasons.append("pipeline parallel: a latent of the last stage would have to reach the first one within a step")
    if vllm_config.speculative_config is not None:
        reasons.append("speculative decoding: a draft cannot propose a latent")
    # 0.32 has it in a config of its own.
    if getattr(vllm_config, "aux_output_config", model).enable_return_routed_experts:
        reasons.append("enable_return_routed_experts: latents leave the engine in the field it fills")
    if model.logprobs_mode not in LOGPROBS_MODES:
        reasons.append(f"logprobs_mode={model.logprobs_mode}: log-probs by role need {' or '.join(LOGPROBS_MODES)}")
    if not model.is_multimodal_model:
        reasons.append("a text-only model: vLLM feeds it token ids, a latent needs inputs_embeds")
    runner = generation(vllm_config)
    if differences := list(different(runner.SEAMS, "vLLM")):
        reasons.append(f"{runner.NAME} of this vLLM: {'; '.join(differences)}; {runner.REMEDY}")
    else:
        reasons += runner.refused(vllm_config)
    if reasons:
        raise ValueError("latent spans do not work with " + "; ".join(reasons))
