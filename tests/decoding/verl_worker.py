"""verl's worker extension for engines that schedule asynchronously on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
from async_on_cpu import without_streams
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder


class AsyncWorker(vLLMColocateWorkerExtension):
    """verl's worker extension, in a process that an engine has started: named as ``worker_extension_cls`` of an engine that was
    made `asynchronously`."""

    def __new__(cls, **kwargs: Any) -> AsyncWorker:
        without_streams(pytest.MonkeyPatch())
        begin, cls.empty_steps = SpanDecoder.begin, 0

        def counting(decoder: SpanDecoder, scheduler_output: Any) -> None:
            cls.empty_steps += scheduler_output.total_num_scheduled_tokens == 0
            begin(decoder, scheduler_output)

        SpanDecoder.begin = counting
        return super().__new__(cls, **kwargs)

    def steps_without_tokens(self) -> int:
        return self.empty_steps
