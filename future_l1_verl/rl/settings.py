"""Our sections of stage 2's config tree, as typed and checked values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.shape import SHAPES
from future_l1_verl.rewards.weights import Weights


@dataclass(frozen=True)
class RewardSettings:
    """The section ``rewards``: the lambdas and the settings of the parts.

    ``temperature`` is the tau of R_ctr; ``shape`` one of rewards/format.py; ``repetition_ngram`` the n of the n-grams, and
    ``overlong_buffer`` the last tokens of an answer over which its penalty grows.

    `from_config` raises ValueError, naming the key, for a value out of range.
    """

    weights: Weights
    temperature: float
    shape: str
    repetition_ngram: int
    overlong_buffer: int

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> RewardSettings:
        names = [field.name for field in fields(Weights)]
        for name in (*names, "temperature"):
            if not 0 <= section[name] < math.inf or (name == "temperature" and section[name] == 0):
                allowed = "positive" if name == "temperature" else "at least 0"
                raise ValueError(f"rewards.{name} must be {allowed}, not {section[name]}")
        for name in ("repetition_ngram", "overlong_buffer"):
            if section[name] < 1:
                raise ValueError(f"rewards.{name} must be at least 1, not {section[name]}")
        if section["shape"] not in SHAPES:
            raise ValueError(f"rewards.shape is one of {', '.join(SHAPES)}, not {section['shape']!r}")
        others = {name: section[name] for name in ("temperature", "shape", "repetition_ngram", "overlong_buffer")}
        return cls(weights=Weights(**{name: section[name] for name in names}), **others)


def judge_settings(section: Mapping[str, Any]) -> JudgeSettings | None:
    """Returns the section ``judge``; None without a URL: answers are then graded only by rule."""
    return JudgeSettings(**section) if section["url"] is not None else None


@dataclass(frozen=True)
class GroupFilter:
    """The section ``group_filter``: groups stay if their mean accuracy lies in ``[low, high]`` (paper section 4), and a step
    generates at most ``max_rounds`` times its number of prompts.

    Raises ValueError, naming the key, for a value out of range.
    """

    low: float
    high: float
    max_rounds: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"need 0 <= group_filter.low <= group_filter.high <= 1, not {self.low} and {self.high}")
        if self.max_rounds < 1:
            raise ValueError(f"group_filter.max_rounds must be at least 1, not {self.max_rounds}")
