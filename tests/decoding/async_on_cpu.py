"""Async scheduling, which vLLM chooses on a GPU, on a CPU: in this process and in those of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.gpu_model_runner import GPUModelRunner


class _Nothing:
    """Stands in for CUDA's events and streams, of which async scheduling makes use; a CPU has done what it was told."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...


def without_streams(patch: pytest.MonkeyPatch) -> None:
    for name in ("Event", "Stream", "current_stream", "stream"):
        patch.setattr(torch.cuda, name, _Nothing)
    patch.setattr(torch, "Event", _Nothing)
    patch.setattr(GPUModelRunner, "_get_or_create_async_output_copy_stream", lambda self: _Nothing())


@contextmanager
def asynchronously() -> Iterator[None]:
    """Engines that are made here schedule asynchronously, against vllm/platforms/cpu.py."""
    stock = CpuPlatform.check_and_update_config.__func__

    def keep_async(cls: type, vllm_config: Any) -> None:
        stock(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", classmethod(keep_async))
        without_streams(patch)
        yield
