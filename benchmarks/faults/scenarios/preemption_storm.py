"""Far more requests than an engine has memory for: they are preempted again and again, and prefilled again in chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from answers import failures, random_request, running, tiny_model
from decoding_harness import CRAMPED, Oracle, Prompt, preemptions
from outcome import Outcome

DONE = "preemption storm: 40 requests at once with memory for two or three, synchronous scheduling and asynchronous"
UNIT = "answers"
REQUESTS, IN_ONE_ENGINE = 40, 10
STORM = 20  # preemptions, at least


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    oracle = tiny_model(work)
    with ExitStack() as stack:
        engines: dict[int, Any] = {}

        def once(number: int) -> Outcome:
            which = number // IN_ONE_ENGINE
            if which not in engines:
                stack.close()
                engines[which] = stack.enter_context(running(oracle, which % 2 == 1, **CRAMPED))
            return storm(engines[which], oracle, Random(number))

        yield once


def storm(llm: Any, oracle: Oracle, draw: Random) -> Outcome:
    prompts = oracle.prompts() + [random_text(oracle, draw) for _ in range(10)]
    asked = [random_request(draw, prompts, draw.randint(32, 128)) for _ in range(REQUESTS)]
    before, began = preemptions(llm), time.monotonic()
    lost, wrong = failures(llm, oracle, asked)
    seconds, preempted = time.monotonic() - began, preemptions(llm) - before
    after = f"answered, each run with over {STORM} preemptions" if preempted > STORM else "no storm"
    return Outcome(sum(each.n for each in asked), lost, wrong, seconds, after)


def random_text(oracle: Oracle, draw: Random) -> Prompt:
    return oracle.of_ids([draw.randrange(20, 320) for _ in range(draw.randint(4, 200))])
