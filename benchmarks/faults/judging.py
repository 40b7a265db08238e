"""Answers that the agent loop's own code has judged and rewarded, while the judge does not do its part."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from chat_server import Reply, Server, says, serving
from outcome import Outcome
from test_agent_loop import GOOD, ROW, output, worker

from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable
from future_l1_verl.rl.agent_loop import LatentAgentLoopOutput, LatentAgentLoopWorker
from future_l1_verl.rl.metrics import reward_metrics

ANSWERS, ATONCE, SIBLINGS = 600, 60, 2
SHORT = 12  # the most answers that a short outage meets: fewer than judge.max_failure_rate of those before it
ATTEMPTS = 2
UNIT = "answers"
Once = Callable[[int], Outcome]


@dataclass
class Outage:
    """Answers as a judge that says yes to even numbers and no to odd ones; requests in ``met`` get a ``fault`` instead."""

    fault: Callable[[], Reply]
    met: range
    began: float = math.inf

    def reply(self, prompt: str, _: int) -> Reply:
        number = int(re.search(r"this number (\d+) ", prompt)[1])
        if number not in self.met:
            return says("yes" if number % 2 == 0 else "no")
        self.began = min(self.began, time.monotonic())
        return self.fault()


@dataclass
class Seen:
    rewarded: dict[int, LatentAgentLoopOutput] = field(default_factory=dict)
    error: JudgeUnavailable | None = None


@contextmanager
def outages(fault: Callable[[], Reply], timeout: float = 30.0) -> Iterator[Once]:
    """Gives a function that has answers judged during an outage: a short one in even runs, an endless one in odd ones.
    ``timeout`` is the judge's, in seconds, and long enough for a busy machine."""

    def once(number: int) -> Outcome:
        first, lasting = random.randrange(ANSWERS // 4, ANSWERS // 2), number % 2 == 1
        outage = Outage(fault, range(first, ANSWERS if lasting else first + random.randint(1, SHORT)))
        with serving() as server:
            server.script = outage.reply
            seen = asyncio.run(judged(server, timeout))
        return outcome(seen, outage, lasting)

    yield once


async def judged(server: Server, timeout: float) -> Seen:
    instance, seen = worker(), Seen()
    instance.judge = Judge(JudgeSettings(server.url, "judge", timeout=timeout, attempts=ATTEMPTS, backoff=0.01))
    try:
        for start in range(0, ANSWERS, ATONCE):
            groups = range(start, start + ATONCE, SIBLINGS)
            await asyncio.gather(*(reward(instance, range(group, group + SIBLINGS), seen.rewarded) for group in groups))
    except JudgeUnavailable as error:
        seen.error = error
    finally:
        await instance.judge.close()
    return seen


async def reward(instance: LatentAgentLoopWorker, group: range, rewarded: dict[int, LatentAgentLoopOutput]) -> None:
    """Has the answers of a group assessed, and then rewarded together."""
    answers = {number: output(GOOD, torch.ones(1, 2)) for number in group}
    rows = {number: ROW | {"question": f"Is this number {number} ?", "options": None} for number in group}
    rows = {number: row | {"reward_model": {"ground_truth": "an even one"}} for number, row in rows.items()}
    assessed = await asyncio.gather(*(instance._assess(answer, rows[number]) for number, answer in answers.items()))
    instance._reward(list(zip(answers.values(), assessed, strict=True)))
    rewarded |= answers


def outcome(seen: Seen, outage: Outage, lasting: bool) -> Outcome:
    """Lost is an answer that is neither judged nor masked in a run that went on; wrong is one that has another verdict than
    without the outage, that has none and is trained on, or that is not counted."""
    wrong = 0
    infos = [answer.extra_fields["reward_extra_info"] for answer in seen.rewarded.values()]
    for number, answer in seen.rewarded.items():
        info = answer.extra_fields["reward_extra_info"]
        if math.isnan(info["acc"]):
            wrong += any(answer.response_mask) or answer.reward_score != 0 or info["judged"] != 0 or number not in outage.met
        else:
            wrong += info["acc"] != (number % 2 == 0) or number in outage.met
    unjudged = sum(math.isnan(info["acc"]) for info in infos)
    counted = reward_metrics(infos, [answer.extra_fields["latent_usage"] for answer in seen.rewarded.values()])
    wrong += abs(round(counted["answers/unjudged"] * len(infos)) - unjudged)
    lost = ANSWERS - len(seen.rewarded) if seen.error is None else 0
    if seen.error is None:
        after = "ended not, as it should" if lasting else "went on, those answers masked"
    else:
        named = "too many verdicts failed" in str(seen.error)
        after = "ended with its reason" if named and lasting else "ended without need"
    return Outcome(ANSWERS, lost, wrong, time.monotonic() - outage.began, after)
