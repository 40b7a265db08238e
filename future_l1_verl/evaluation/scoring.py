"""Accuracy per split with its uncertainty, and how the answers came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``. Raises ValueError if there are none."""
    if len(values) == 0:
        raise ValueError("no values to resample")
    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per split, and for ``all``: ``n, accuracy, interval, parsed, with_span, spans, latents`` (means per answer) and
    ``majority``, the accuracy of always giving the most frequent right answer."""
    splits = sorted({record["split"] for record in records})
    groups = {split: [record for record in records if record["split"] == split] for split in splits}
    return {split: _summary(group) for split, group in [*groups.items(), ("all", list(records))]}


def _summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    correct = [float(record["correct"]) for record in records]
    return {
        "n": len(records),
        "accuracy": float(np.mean(correct)),
        "interval": list(bootstrap_interval(correct)),
        "majority": max(Counter(record["truth"] for record in records).values()) / len(records),
        "parsed": float(np.mean([record["parsed"] for record in records])),
        "with_span": float(np.mean([len(record["spans"]) > 0 for record in records])),
        "spans": float(np.mean([len(record["spans"]) for record in records])),
        "latents": float(np.mean([sum(record["spans"]) for record in records])),
    }
