"""Verdicts on rollouts: a rule first and a judge for the rest, whose outages are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from data_prep.visual_gain.patience import Patience, ask_all
from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import Grade, answer_text
from future_l1_verl.rewards.judge import Judge, JudgeSettings, JudgeUnavailable


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
        self._calls_before = 0  # of judges that were replaced

    @property
    def calls(self) -> int:
        """Verdicts asked of the judge so far."""
        return self._calls_before + (self.judge.counts.asked if self.judge else 0)

    def grades(self, asked: Sequence[Asked]) -> list[Grade | str]:
        """For each text its grade, or why there is none. Raises Outage if the judge stays away."""
        return self.runner.run(self._grades(asked))

    async def _grades(self, asked: Sequence[Asked]) -> list[Grade | str]:
        return await ask_all(
            [lambda one=one: self._grade(one) for one in asked],
            lambda grade: isinstance(grade, Grade),
            self._wrong,
            self.patience,
        )

    async def _grade(self, asked: Asked) -> Grade | str:
        try:
            grade = await assess(answer_text(asked.text), asked.question, asked.truth, asked.options or None, self.judge)
        except JudgeUnavailable as error:
            return str(error)
        return grade if grade is not None else f"no verdict: {self.judge.counts.last_error}"

    async def _wrong(self) -> str | None:
        """What keeps the judge from a verdict that is never in doubt; if nothing does, one that had given up begins anew."""
        probe = Judge(replace(self.settings, cache=None, attempts=1))
        try:
            verdict = await probe.verdict("What is one plus one?", "2", "2")
        except JudgeUnavailable as error:
            return str(error)
        finally:
            await probe.close()
        if verdict is None:
            return f"the judge at {self.settings.url}: {probe.counts.last_error}"
        self._calls_before += self.judge.counts.asked
        await self.judge.close()
        self.judge = Judge(self.settings)
        return None
