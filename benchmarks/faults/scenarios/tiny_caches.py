"""Engines whose memory an answer just fits into, and requests and engines that do not fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from answers import Asked, failures, patience, random_options, running, tiny_model
from decoding_harness import BLOCK, Oracle
from outcome import Outcome

DONE = "an engine with memory for one answer to its last token, asked for three of them and one too long; an engine with less"
UNIT = "answers and refusals"
ANSWERS = 3


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    oracle = tiny_model(work)
    yield lambda number: fitting(oracle, Random(number), asynchronous=number % 2 == 1)


def fitting(oracle: Oracle, draw: Random, asynchronous: bool) -> Outcome:
    """An engine of its own; one of its blocks is vLLM's. ``ANSWERS`` take all tokens that it has room for."""
    began = time.monotonic()
    blocks = draw.randint(3, 12)
    room = BLOCK * (blocks - 1)
    small: dict[str, Any] = dict(num_gpu_blocks_override=blocks, max_model_len=room, max_num_batched_tokens=64)
    mistaken = int(not refused(oracle, asynchronous, small | dict(max_model_len=room + draw.randint(1, 2 * BLOCK))))
    with running(oracle, asynchronous, **small) as llm:
        asked = []
        for _ in range(ANSWERS):
            ids = [draw.randrange(20, 320) for _ in range(draw.randint(1, room - 1))]
            asked.append(Asked(oracle.of_ids(ids), room - len(ids), seed=draw.randrange(2**31), options=random_options(draw)))
        lost, wrong = failures(llm, oracle, asked)
        too_long = oracle.of_ids([draw.randrange(20, 320) for _ in range(room + 1)])
        with pytest.raises(ValueError, match="maximum context length"), patience():
            llm.generate([too_long.for_vllm], use_tqdm=False)
        again = failures(llm, oracle, asked[:1])
    return Outcome(ANSWERS + 3, lost + again[0], wrong + again[1] + mistaken, time.monotonic() - began, "answered what fits")


def refused(oracle: Oracle, asynchronous: bool, arguments: dict[str, Any]) -> bool:
    try:
        with running(oracle, asynchronous, **arguments):
            return False
    except ValueError as error:
        return "KV cache" in str(error)
