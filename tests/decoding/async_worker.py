"""A worker extension for engines that schedule asynchronously on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
from async_on_cpu import without_streams
from decoding_harness import V2


class AsyncWorker:
    """Named as ``worker_extension_cls`` of an engine that was made `asynchronously`; works in the process of a worker."""

    def __new__(cls, **kwargs: Any) -> AsyncWorker:
        if V2:  # which brings its own stand-ins for streams
            from future_l1_verl.decoding.vllm.v2.state import LatentModelState as Spans
        else:
            from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder as Spans

            without_streams(pytest.MonkeyPatch())
        begin, cls.empty_steps = Spans.begin, 0

        def counting(spans: Spans, scheduler_output: Any) -> None:
            cls.empty_steps += scheduler_output.total_num_scheduled_tokens == 0
            begin(spans, scheduler_output)

        Spans.begin = counting
        following = super().__new__
        return following(cls) if following is object.__new__ else following(cls, **kwargs)

    def steps_without_tokens(self) -> int:
        return self.empty_steps
