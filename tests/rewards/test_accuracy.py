"""Who decides whether an answer is right: the rule, the judge, or one after the other."""

import asyncio

import numpy as np
import pytest

from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable

RIGHT, WRONG, UNPARSED = Grade(True, True), Grade(False, True), Grade(False, False)
OPTIONS = ["left", "right"]


class Asked(Judge):
    """A judge without a server: it notes what it is asked and says what it was told to."""

    def __init__(self, mode: str, says: bool | None) -> None:
        self.settings = JudgeSettings(url="http://judge", model="m", mode=mode)
        self.says = says
        self.asked: list[tuple[str, str, str]] = []
        self._broken = None

    async def verdict(self, question: str, answer: str, truth: str) -> bool | None:
        self.asked.append((question, answer, truth))
        return self.says


@pytest.mark.parametrize(
    ("mode", "answer", "truth", "options", "says", "grade", "is_asked"),
    [
        ("rule_first", "B", "right", OPTIONS, False, RIGHT, False),  # multiple choice is the rule's
        ("rule_first", "A or B", "right", OPTIONS, True, UNPARSED, False),
        ("rule_first", "it falls", "It falls.", None, False, RIGHT, False),  # right by rule
        ("rule_first", "it drops", "It falls.", None, True, RIGHT, True),
        ("rule_first", "it flies", "It falls.", None, False, WRONG, True),
        ("rule_first", "it drops", "It falls.", None, None, None, True),  # row 22: no verdict is no grade
        ("rule_first", "B", "right", {"A": "left", "B": "right"}, False, RIGHT, False),
        ("rule_first", "A", "right", np.array(OPTIONS), True, WRONG, False),
        ("rule_first", "it drops", "It falls.", np.array([]), True, RIGHT, True),  # no options
        ("rule_first", "it drops", "It falls.", {"A": None}, True, RIGHT, True),
        ("judge_only", "B", "right", OPTIONS, False, WRONG, True),
        ("judge_only", "it falls", "It falls.", None, None, None, True),
        ("rule_first", None, "It falls.", None, True, UNPARSED, False),
        ("judge_only", None, "It falls.", None, True, UNPARSED, False),
    ],
)
def test_who_decides(mode, answer, truth, options, says, grade, is_asked) -> None:
    judge = Asked(mode, says)
    assert asyncio.run(assess(answer, "What is next?", truth, options, judge)) == grade
    # docs/differences.md, row 19: the answer as it was given.
    assert judge.asked == ([("What is next?", answer, truth)] if is_asked else [])


def test_without_a_judge_the_rule_decides_everything() -> None:
    assert asyncio.run(assess("it drops", "What is next?", "It falls.")) == WRONG


def test_a_judge_that_is_gone_ends_it_for_every_answer() -> None:
    """docs/differences.md, row 22: else only answers that are right by rule would be left to train on."""
    judge = Asked("rule_first", True)
    judge._broken = JudgeUnavailable("gone")
    with pytest.raises(JudgeUnavailable, match="gone"):
        asyncio.run(assess("it falls", "What is next?", "It falls.", None, judge))
