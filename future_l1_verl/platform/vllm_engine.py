"""What every vLLM engine of ours is told on a machine without an accelerator."""

from __future__ import annotations

from typing import Any

import torch


def engine_defaults() -> dict[str, Any]:
    """Engine arguments; none on a GPU.

    Prompts are not cut on a CPU: after a part of one vLLM takes back what its discarded sample drew from a request's generator
    (vllm/v1/worker/gpu_model_runner.py:3640), which the generators of a CPU cannot.
    """
    if torch.cuda.is_available():
        return {}
    return {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": 8192}
