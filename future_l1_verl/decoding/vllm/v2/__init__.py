"""Latent spans on vLLM's V2 model runner (vllm/v1/worker/gpu).

A request has a row in the runner's tables while it runs. There ``state`` (a model state) keeps, on the device, what a span
needs from step to step; ``sampler`` samples, masks and scores; ``runner`` installs both.
"""

from vllm.config import VllmConfig
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.sample import logprob
from vllm.v1.worker.gpu.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.v2.runner import LatentRunnerMixin, install
from future_l1_verl.decoding.vllm.v2.sampler import LatentSampler

__all__ = ["NAME", "REMEDY", "SEAMS", "LatentRunnerMixin", "LatentSampler", "install", "refused"]

NAME, REMEDY = "the V2 model runner", "set VLLM_USE_V2_MODEL_RUNNER=0 for V1"
_SAMPLED = (
    *("logits", "expanded_idx_mapping", "idx_mapping", "idx_mapping_np"),
    *("pos", "input_ids", "expanded_local_pos", "seq_lens_upper_bound_np"),
)
SEAMS = [
    (GPUModelRunner, "load_model", ("self", "load_dummy_weights")),
    (GPUModelRunner, "execute_model", ("self", "scheduler_output", "intermediate_tensors")),
    (GPUModelRunner, "sample", ("self", "hidden_states", "input_batch", "grammar_output")),
    (GPUModelRunner, "sample_tokens", ("self", "grammar_output")),
    (DefaultModelState, "__init__", ("self", "vllm_config", "model", "encoder_cache", "device")),
    (DefaultModelState, "add_request", ("self", "req_index", "new_req_data")),
    (DefaultModelState, "apply_staged_writes", ("self",)),
    (DefaultModelState, "prepare_inputs_embeds", ("self", "scheduled_encoder_inputs", "input_batch", "req_states")),
    (DefaultModelState, "custom_sampler", ("self", "sampler")),
    (Sampler, "__call__", ("self", "logits", "input_batch")),
    (Sampler, "apply_sampling_params", ("self", *_SAMPLED)),
    (Sampler, "sample", ("self", *_SAMPLED)),
    (logprob, "compute_token_logprobs", ("logits", "token_ids")),
]


def refused(vllm_config: VllmConfig) -> list[str]:
    """Returns the reasons why spans cannot work on this runner with these settings, besides those of every runner."""
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    reasons = {
        "sampling that is sharded by requests: a rank has to know the latents of all": parallel.enable_batch_sharded_sampling,
        "prefill context parallel: the tokens of a prompt lie on several ranks": parallel.prefill_context_parallel_size > 1,
        "a watermark: it replaces the sampler": vllm_config.watermark_config is not None,
        "return_sampling_mask: a token of a span is not what was sampled": model.return_sampling_mask,
        "enable_trace_replay: a token of a span is not what was sampled": model.enable_trace_replay,
    }
    return [reason for reason, holds in reasons.items() if holds]
