"""Makes weights of vLLM's CPU build loadable again, for verl's weight synchronisation."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod


def _keep_weights(method: Any, layer: torch.nn.Module) -> None:
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    def __new__(cls, **kwargs: Any) -> CpuWorkerExtension:
        """Prevents vllm/model_executor/layers/{linear,utils}.py from repacking weights, which drops their ``weight_loader``.

        verl's weight synchronisation would then fail in the worker, while the trainer waits for it.
        """
        UnquantizedLinearMethod.process_weights_after_loading = _keep_weights
        UnquantizedEmbeddingMethod.process_weights_after_loading = _keep_weights
        return super().__new__(cls, **kwargs)
