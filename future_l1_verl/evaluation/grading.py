"""Grades a reply as right or wrong, or with marks from 0 to 5."""

from dataclasses import dataclass

from future_l1_verl.data.rows import Row
from future_l1_verl.evaluation.marks import mark, mark_by_reference, reasoning_text
from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.judge.client import Judge


@dataclass(frozen=True)
class Verdict:
    """``parsed``: the answer names one definite thing. ``scores`` None: there is no verdict, and ``error`` says why."""

    parsed: bool
    scores: dict[str, float] | None
    error: str | None = None


async def grade_reply(text: str, row: Row, judge: Judge | None) -> Verdict:
    """Returns ``accuracy`` 0 or 1 of a whole reply, as in stage 2 (`assess`); without one ``<answer>`` it is unparsed.

    Raises JudgeUnavailable from the moment the judge is.
    """
    grade = await assess(answer_text(text), row.question, row.truth, row.options or None, judge)
    if grade is None:
        return _without_verdict(judge)
    return Verdict(grade.parsed, {"accuracy": float(grade.correct)})


async def mark_reply(text: str, row: Row, judge: Judge, protocol: str, max_frames: int) -> Verdict:
    """Returns marks (0 to 5) for ``reasoning`` and ``answer`` of a whole reply by one of `PROTOCOLS`; without one ``<answer>``
    it is unparsed, which in our protocol gives 0 for both without asking the judge.

    Raises JudgeUnavailable from the moment the judge is.
    """
    judge.require_available()
    answer = answer_text(text)
    if protocol == "reference":
        marks = await mark_by_reference(judge, row, text, max_frames)
    elif answer is None:
        return Verdict(False, {"reasoning": 0.0, "answer": 0.0})
    else:
        marks = await mark(judge, row.question, reasoning_text(text), answer, row.truth)
    if marks is None:
        return _without_verdict(judge)
    return Verdict(answer is not None, {"reasoning": float(marks.reasoning), "answer": float(marks.answer)})


def _without_verdict(judge: Judge) -> Verdict:
    return Verdict(False, None, f"no verdict; the judge's last error: {judge.counts.last_error}")
