"""Steps without tokens, while another is in flight within a span: all memory is taken when a request needs one block more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from answers import Asked, failures, running, tiny_model
from decoding_harness import CRAMPED, Oracle, blocking
from outcome import Outcome

from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder

DONE = "steps without tokens under asynchronous scheduling: two requests fill the memory, shared at random, three times a run"
UNIT = "answers"
BLOCKS, LEAST = 29, 6  # of an engine that is cramped, and of a request
TIMES = 3
LATENTS = {"min_latents": 40, "max_latents": 40}


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    oracle, begin = tiny_model(work), SpanDecoder.begin
    scheduled: list[int] = []

    def spied(decoder: SpanDecoder, scheduler_output: Any) -> None:
        scheduled.append(scheduler_output.total_num_scheduled_tokens)
        begin(decoder, scheduler_output)

    SpanDecoder.begin = spied
    with running(oracle, True, **CRAMPED) as llm:
        yield lambda number: shared(llm, oracle, Random(number), scheduled)


def shared(llm: Any, oracle: Oracle, draw: Random, scheduled: list[int]) -> Outcome:
    lost = wrong = empty = 0
    longest = 0.0
    for first in draw.sample(range(LEAST, BLOCKS - LEAST + 1), TIMES):
        prompts, samplings = blocking(oracle, (first, BLOCKS - first))
        opened = {oracle.settings.tokens.start: 100.0}
        # With cached prompts the two go in step.
        failures(llm, oracle, [Asked(prompt, 1) for prompt in prompts])
        scheduled.clear()
        began = time.monotonic()
        asked = [
            Asked(prompt, sampling.max_tokens, options=LATENTS) for prompt, sampling in zip(prompts, samplings, strict=True)
        ]
        failed = failures(llm, oracle, asked, opened)
        longest = max(longest, time.monotonic() - began)
        lost, wrong = lost + failed[0], wrong + failed[1]
        empty += 0 in scheduled[:-1] and scheduled[scheduled.index(0) + 1] > 1
    after = "answered, resumed right after a step without tokens" if empty == TIMES else "no step without tokens"
    return Outcome(2 * TIMES, lost, wrong, longest, after)
