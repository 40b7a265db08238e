"""Engines of these tests take one process less: on a CPU vLLM gives the worker one for its threads (vllm/platforms/cpu.py)."""

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_worker_process() -> Iterator[None]:
    with patch.dict(os.environ, VLLM_ENABLE_V1_MULTIPROCESSING="0"):
        yield
