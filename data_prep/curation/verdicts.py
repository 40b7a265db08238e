"""Verdicts on rollouts: a rule first and a judge for the rest, whose outages are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from data_prep.curation.patience import Patience, ask_all, waited
from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import Grade, answer_text
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable


class Asked(NamedTuple):
    """A rollout's text, and what it is an answer to."""

    text: str
    question: str
    truth: str
    options: list[str]


class Verdicts:
    """Grades texts; without a judge (settings None) by rule alone."""

    def __init__(self, settings: JudgeSettings | None, patience: Patience) -> None:
        self.settings, self.patience = settings, patience
        self.runner = asyncio.Runner()
        self.judge = Judge(settings) if settings else None
        self.calls = 0  # verdicts asked of the judge so far

    def grades(self, asked: Sequence[Asked]) -> list[Grade | str]:
        """For each text its grade, or why there is none. Raises Outage if the judge stays away."""
        return self.runner.run(self._grades(asked))

    def wait_for_judge(self) -> None:
        """Returns once the judge answers. Raises Outage, or JudgeUnavailable if it refuses for good."""
        if self.judge is not None:
            self.runner.run(waited(self._wrong, self.patience))

    async def _grades(self, asked: Sequence[Asked]) -> list[Grade | str]:
        found = await ask_all(
            [lambda one=one: self._grade(one) for one in asked],
            lambda grade: isinstance(grade, Grade),
            self._wrong,
            self.patience,
        )
        if self.judge is not None:
            await self._begin_anew()  # what a judge remembers would grow for ever
        return found

    async def _grade(self, asked: Asked) -> Grade | str:
        try:
            grade = await assess(answer_text(asked.text), asked.question, asked.truth, asked.options or None, self.judge)
        except JudgeUnavailable as error:
            return f"judge unavailable: {error}"
        return grade if grade is not None else f"no verdict: {self.judge.counts.last_error}"

    async def _wrong(self) -> str | None:
        """What keeps the judge from a verdict that is never in doubt; if nothing does, one that had given up begins anew.

        Raises JudgeUnavailable if the judge refuses for good.
        """
        probe = Judge(replace(self.settings, cache=None, attempts=1))
        try:
            verdict = await probe.verdict("What is one plus one?", "2", "2")
        finally:
            await probe.close()
        if verdict is None:
            return f"the judge at {self.settings.url}: {probe.counts.last_error}"
        await self._begin_anew()
        return None

    async def _begin_anew(self) -> None:
        self.calls += self.judge.counts.asked
        await self.judge.close()
        self.judge = Judge(self.settings)
