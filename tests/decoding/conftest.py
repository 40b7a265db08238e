"""A tiny checkpoint and its plain transformers model, shared by all tests of decoding."""

from __future__ import annotations

import os

# Read when torch is loaded, and by vLLM in this process and in those it starts.
os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    TORCHDYNAMO_DISABLE="1",  # vLLM compiles small functions of its sampler, in every process anew
)

from pathlib import Path

import pytest
from decoding_harness import Oracle

from future_l1_verl.modeling import tiny


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("checkpoint")
    tiny.build(Path(out), seed=0, max_latents=6)
    return str(out)


@pytest.fixture(scope="session")
def oracle(tiny_checkpoint: str) -> Oracle:
    return Oracle(tiny_checkpoint)
