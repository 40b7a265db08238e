"""Arguments of all our vLLM engines on a machine without an accelerator, and the errors by which they refuse a prompt."""

from typing import Any

import torch


def engine_defaults() -> dict[str, Any]:
    """Returns engine arguments; none on a GPU.

    On a CPU prompts are not split into chunks: after a chunk vLLM resets a request's generator, from which the discarded
    sample drew (vllm/v1/worker/gpu_model_runner.py), and a CPU's generators do not support that.
    """
    if torch.cuda.is_available():
        return {}
    return {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": 8192}


def refusals() -> tuple[type[Exception], ...]:
    """Returns the errors by which vLLM or a processor refuses a prompt, such as one too long or with an extreme picture; vLLM's
    own is a ValueError in 0.24 alone."""
    from vllm.exceptions import VLLMValidationError

    return ValueError, VLLMValidationError
