"""The verdict on a reply: right or wrong, or marks from 0 to 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from future_l1_verl.evaluation.marks import mark, reasoning_text
from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.judge import Judge


@dataclass(frozen=True)
class Verdict:
    """``parsed``: the reply answers one definite thing. ``scores`` None: there is no verdict, and ``error`` says why."""

    parsed: bool
    scores: dict[str, float] | None
    error: str | None = None


async def grade_reply(text: str, question: str, truth: str, options: Sequence[str] | None, judge: Judge | None) -> Verdict:
    """``accuracy`` 0 or 1 of a whole reply, found as stage 2 finds it (`assess`); without one ``<answer>`` it is unparsed.

    Raises ValueError if ``truth`` is none of the options; JudgeUnavailable from the moment the judge is.
    """
    grade = await assess(answer_text(text), question, truth, options, judge)
    if grade is None:
        return _without_verdict(judge)
    return Verdict(grade.parsed, {"accuracy": float(grade.correct)})


async def mark_reply(text: str, question: str, truth: str, judge: Judge) -> Verdict:
    """Marks (0 to 5) for ``reasoning`` and ``answer`` of a whole reply; without one ``<answer>`` it is unparsed: 0 for both,
    and nobody is asked.

    Raises JudgeUnavailable from the moment the judge is.
    """
    judge.require_available()
    answer = answer_text(text)
    if answer is None:
        return Verdict(False, {"reasoning": 0.0, "answer": 0.0})
    marks = await mark(judge, question, reasoning_text(text), answer, truth)
    if marks is None:
        return _without_verdict(judge)
    return Verdict(True, {"reasoning": float(marks.reasoning), "answer": float(marks.answer)})


def _without_verdict(judge: Judge) -> Verdict:
    return Verdict(False, None, f"no verdict; the judge's last error: {judge.counts.last_error}")
