"""docs/guides/rewards.md: its code runs, and does what stands beside it."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from future_l1_verl.rewards.score import compute_score_sync
from future_l1_verl.rewards.scoring import Scoring

PAGE = (Path(__file__).parents[2] / "docs/guides/rewards.md").read_text()
SCORES, GROUPS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_scores() -> None:
    names = {"compute_score_sync": compute_score_sync}
    calls = re.findall(r"^compute_score_sync.*", SCORES, re.MULTILINE)
    found = [eval(call, names) for call in calls]
    assert found[0] == ast.literal_eval(re.search(r"^# (\{.*\})", SCORES, re.MULTILINE)[1])
    assert [each["score"] for each in found] == [1.0, 1.0, 0.9]


def test_keywords_are_those_of_the_code_with_its_defaults() -> None:
    table = {}
    for names, defaults in re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE, re.MULTILINE):
        table |= zip(re.findall(r"`(\w+)`", names), re.findall(r"[\w.]+", defaults), strict=True)
    assert table == {field.name: str(field.default).removesuffix(".0").lower() for field in fields(Scoring)}


def test_group_rewards() -> None:
    names: dict = {}
    exec(GROUPS, names)
    rewards = names["rewards"]
    assert rewards.total.shape == (3,) and rewards.parts.shape == (3, len(names["PARTS"]))
    # The last is wrong; what it lacks latents for counts as the mean of the others.
    assert (rewards.total[:2] - rewards.total[2]).tolist() == pytest.approx([0.9, 0.9])
