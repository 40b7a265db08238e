"""How latents leave the engine: on the request's own output.

``ModelRunnerOutput`` → ``LatentRunnerOutput.latents`` (worker to scheduler) → ``EngineCoreOutput.routed_experts``
(scheduler to front end) → ``CompletionOutput.routed_experts``, which the front end concatenates over steps. Of the two
fields of an output that could carry an array, this one streams, so it survives an abort and works with n > 1;
``kv_transfer_params`` rides on the last output only. The field is otherwise used for MoE router replay, which is refused.
Engines with tensor parallel workers exit cleanly with it (tests/decoding/test_vllm_processes.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from vllm.outputs import CompletionOutput
from vllm.v1.outputs import ModelRunnerOutput

from future_l1_verl.decoding.vllm.wire import from_array


@dataclass
class LatentRunnerOutput(ModelRunnerOutput):
    """Upstream's output of a step, with the latent of each request that got a slot and wants it back: id to ``[1, H]``."""

    latents: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, output: ModelRunnerOutput, latents: dict[str, np.ndarray]) -> LatentRunnerOutput:
        return cls(**vars(output), latents=latents)


def completion_latents(output: CompletionOutput, hidden_size: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """The latents of a finished (or aborted) completion, in the order of its slots.

    Returns ``[slots, H]`` in the model's dtype (float32, float16 or bfloat16), and ``[0, hidden_size]`` of ``dtype`` if the
    completion has no slot, or its request wanted none back: the engine sends nothing then, so that both have to be named where
    they matter.

    Raises ValueError if the completion is not finished, or ``hidden_size`` is given and is not the latents' width.
    """
    if output.finish_reason is None:
        raise ValueError(f"completion {output.index} is not finished; its latents come with its last output")
    if output.routed_experts is None:
        return torch.empty(0, hidden_size, dtype=dtype)
    latents = from_array(output.routed_experts)
    if hidden_size and latents.shape[-1] != hidden_size:
        raise ValueError(f"completion {output.index}: latents have width {latents.shape[-1]}, not {hidden_size}")
    return latents
