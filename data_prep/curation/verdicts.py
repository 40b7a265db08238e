"""Verdicts on rollouts: by a rule first and by a judge for the rest; it waits during the judge's outages."""

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
    """A rollout's text, and the candidate that it answers."""

    text: str
    question: str
    truth: str
    options: list[str]


class Verdicts:
    """Grades texts; without a judge (settings None) only by rule."""

    def __init__(self, settings: JudgeSettings | None, patience: Patience) -> None:
        self.settings, self.patience = settings, patience
        self.runner = asyncio.Runner()
        self.judge = Judge(settings) if settings else None
        self.calls = 0  # verdicts asked of the judge so far

    def grades(self, asked: Sequence[Asked]) -> list[Grade | str]:
        """Returns for each text its grade, or why there is none. Raises Outage if the judge is away for too long."""
        return self.runner.run(self._grades(asked))

    def wait_for_judge(self) -> None:
        """Waits until the judge answers. Raises Outage, or JudgeUnavailable if it refuses permanently."""
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
            await self._begin_anew()  # else the judge's memory would grow without limit
        return found

    async def _grade(self, asked: Asked) -> Grade | str:
        try:
            grade = await assess(answer_text(asked.text), asked.question, asked.truth, asked.options or None, self.judge)
        except JudgeUnavailable as error:
            return f"judge unavailable: {error}"
        return grade if grade is not None else f"no verdict: {self.judge.counts.last_error}"

    async def _wrong(self) -> str | None:
        """Asks for an obvious verdict and returns what prevents it, or None; a judge that had given up is then started anew.

        Raises JudgeUnavailable if the judge refuses permanently.
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
