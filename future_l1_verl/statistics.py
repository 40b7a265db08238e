"""Means with their uncertainty, by split, for training, evaluation and curation.

An answer without a verdict counts in ``n`` but in no mean, and makes the whole incomplete.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000

Scores = Mapping[str, float]


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the mean of ``values``. Raises ValueError if there are none."""
    if len(values) == 0:
        raise ValueError("no values to resample")
    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    return percentile_interval([sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(RESAMPLES)])


def percentile_interval(means: Sequence[float]) -> tuple[float, float]:
    """Returns the bounds of the middle 95 % of resampled means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def by_split(splits: Sequence[str]) -> dict[str, list[int]]:
    """Returns the indices of each split, sorted by its name, and of ``all``."""
    groups = {split: [i for i, other in enumerate(splits) if other == split] for split in sorted(set(splits))}
    return groups | {"all": list(range(len(splits)))}


def columns(scores: Sequence[Scores]) -> dict[str, list[float]]:
    """Returns the values of each score over the answers, and of ``average``, the mean of an answer's scores, if several."""
    named = {name: [each[name] for each in scores] for name in (scores[0] if scores else ())}
    return named | ({"average": [float(np.mean(list(each.values()))) for each in scores]} if len(named) > 1 else {})


def score(parsed: Sequence[bool], scores: Sequence[Scores | None]) -> dict[str, Any]:
    """Returns figures of answers, in evaluation and training; ``scores`` is None where the verdict is missing.

    ``n`` counts all answers, ``missing`` those without a verdict. ``parsed``, a share, and ``scores``, by name a ``mean`` and
    its 95 % bootstrap ``interval``, are over the ``n - missing`` others; without any, ``parsed`` is None and ``scores`` empty.
    """
    judged = [i for i, each in enumerate(scores) if each is not None]
    return {
        "n": len(scores),
        "missing": len(scores) - len(judged),
        "parsed": float(np.mean([parsed[i] for i in judged])) if judged else None,
        "scores": {
            name: {"mean": float(np.mean(values)), "interval": list(bootstrap_interval(values))}
            for name, values in columns([scores[i] for i in judged]).items()
        },
    }


def with_interval(mean: float, interval: Sequence[float]) -> str:
    return f"{mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
