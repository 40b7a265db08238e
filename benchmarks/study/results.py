"""What is kept of an arm of the study: a file of some kB with a verdict per question, and curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Curve = list[tuple[int, float]]
RESAMPLES = 10_000
Z = 1.96  # of a 95 % interval
NOT_ASKED = "-"


@dataclass(frozen=True)
class Result:
    """An arm with one seed.

    ``verdicts`` are strings of a 0 or 1 per question, by split and by what is judged: ``right``, ``parsed``, ``reasoning``, and
    with interventions ``swap`` and ``zero``, which have ``-`` for a question that was not asked; empty for an arm that was not
    tested. ``means`` are those of ``spans``, ``latents`` and ``tokens`` of an answer, by split. ``seconds`` are those of
    ``training``, ``evaluation`` and the whole ``quickstart``.
    """

    arm: str
    seed: int
    commit: str
    machine: str
    versions: dict[str, str]
    seconds: dict[str, int]
    verdicts: dict[str, dict[str, str]]
    means: dict[str, dict[str, float]]
    curves: dict[str, Curve]

    def values(self, judged: str, split: str = "all") -> np.ndarray:
        """``[questions]`` of 0 and 1, in the order of the data; NaN for a question that was not asked."""
        splits = self.verdicts if split == "all" else [split]
        bits = "".join(self.verdicts[name][judged] for name in splits)
        return np.array([np.nan if bit == NOT_ASKED else float(bit) for bit in bits])


def read(folder: Path) -> dict[str, dict[int, Result]]:
    """The results below ``folder``, by arm and seed."""
    found: dict[str, dict[int, Result]] = {}
    for path in sorted(folder.rglob("*.json")):
        result = Result(**json.loads(path.read_text()))
        found.setdefault(result.arm, {})[result.seed] = result
    return {arm: dict(sorted(seeds.items())) for arm, seeds in found.items()}


def interval(values: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``values``, an array ``[questions]`` per training seed, when seeds are drawn anew
    and then the questions of each (hierarchical bootstrap; each seed has questions of its own).

    Of the variance between k seeds it sees (k - 1) / k, and of one seed nothing: such an interval is of questions alone.
    """
    rng = np.random.default_rng(seed)
    # The mean of n values drawn anew, for all resamples at once: how often each distinct value was drawn.
    means = np.empty((len(values), RESAMPLES))
    for of_seed, row in zip(values, means, strict=True):
        distinct, counts = np.unique(of_seed, return_counts=True)
        row[:] = rng.multinomial(len(of_seed), counts / len(of_seed), RESAMPLES) @ distinct / len(of_seed)
    drawn = rng.integers(len(values), size=(len(values), RESAMPLES))
    which = rng.integers(RESAMPLES, size=drawn.shape)
    low, high = np.percentile(means[drawn, which].mean(axis=0), [2.5, 97.5])
    return float(low), float(high)


def mean(values: Sequence[np.ndarray]) -> float:
    """Each seed counts the same."""
    return float(np.mean([of_seed.mean() for of_seed in values]))


def differences(a: dict[int, Result], b: dict[int, Result], judged: str = "right", split: str = "all") -> list[np.ndarray]:
    """``b`` less ``a``, question by question, of the seeds that both have."""
    return [b[seed].values(judged, split) - a[seed].values(judged, split) for seed in sorted(a.keys() & b.keys())]


def seeds_needed(values: Sequence[np.ndarray]) -> int | None:
    """How many seeds, with as many questions each, would show a difference as large as this one outside a 95 % interval.

    None if there are fewer than two, which do not tell how they scatter.
    """
    means = [of_seed.mean() for of_seed in values]
    if len(means) < 2 or not (difference := abs(np.mean(means))):
        return None
    return max(2, int(np.ceil(np.var(means, ddof=1) * (Z / difference) ** 2)))


def share_of_questions(values: Sequence[np.ndarray]) -> float:
    """Returns the share of the variance between the means of seeds, two or more, that the drawing of questions would make."""
    drawing = np.mean([np.var(of_seed, ddof=1) / len(of_seed) for of_seed in values])
    between = np.var([of_seed.mean() for of_seed in values], ddof=1)
    return float(min(1, drawing / between)) if between else 1.0


def to_json(result: dict[str, Any]) -> str:
    """A line per field, so that a file is small and can be read."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"
