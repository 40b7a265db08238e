"""Latent spans on vLLM's V1 model runner (vllm/v1/worker/gpu_model_runner.py).

It has no hook for the embeddings of single requests, so methods of the runner and of the sampler are overridden (``runner``,
``sampler``). A batch mostly keeps its order from step to step, so ``decoder`` can carry latents over by row (``plan``).
``head`` masks the tokens that cannot be sampled outside spans.
"""

from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from future_l1_verl.decoding.vllm.v1.runner import LatentRunnerMixin, install
from future_l1_verl.decoding.vllm.v1.sampler import LatentSampler

__all__ = ["NAME", "REMEDY", "SEAMS", "LatentRunnerMixin", "LatentSampler", "install", "refused"]

NAME, REMEDY = "the V1 model runner", "reinstall it unpatched"
SEAMS = [
    (LogitsProcessor, "forward", ("self", "lm_head", "hidden_states", "embedding_bias")),
    (GPUModelRunner, "load_model", ("self", "load_dummy_weights")),
    (GPUModelRunner, "execute_model", ("self", "scheduler_output", "intermediate_tensors")),
    (GPUModelRunner, "_preprocess", ("self", "scheduler_output", "num_input_tokens", "intermediate_tensors")),
    (GPUModelRunner, "_sample", ("self", "logits", "spec_decode_metadata")),
    (GPUModelRunner, "sample_tokens", ("self", "grammar_output")),
    (Sampler, "__init__", ("self", "logprobs_mode", "use_fp64_gumbel")),
    (Sampler, "forward", ("self", "logits", "sampling_metadata", "predict_bonus_token", "logprobs_mode_override")),
    (Sampler, "gather_logprobs", ("logprobs", "num_logprobs", "token_ids")),
]


def refused(vllm_config: VllmConfig) -> list[str]:
    """Returns the reasons why spans cannot work on this runner with these settings, besides those of every runner."""
    return []
