"""R_acc of one answer: by rule, by the judge, or by rule first and the judge for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from future_l1_verl.rewards.answer import Grade, grade
from future_l1_verl.rewards.options import given

if TYPE_CHECKING:
    from future_l1_verl.rewards.judge.client import Judge


async def assess(
    answer: str | None,
    question: str,
    truth: str,
    options: Sequence[str] | Mapping[str, str] | None = None,
    judge: Judge | None = None,
) -> Grade | None:
    """Returns the grade of an answer; None if the judge was asked and gave no usable verdict.

    Unless the judge's mode is ``judge_only``, a rule decides multiple choice, and an open answer that is right by rule is
    right. ``answer`` None (no answer was found in the reply) is unparsed, and the judge is not asked. Raises JudgeUnavailable
    once the judge is unavailable, and what `grade` raises.
    """
    if judge is not None:
        judge.require_available()
    if answer is None:
        return Grade(correct=False, parsed=False)
    if judge is None or (judge.settings.mode == "rule_first" and given(options)):
        return grade(answer, truth, options)
    if judge.settings.mode == "rule_first" and grade(answer, truth).correct:
        return Grade(correct=True, parsed=True)
    verdict = await judge.verdict(question, answer, truth)
    return None if verdict is None else Grade(correct=verdict, parsed=True)
