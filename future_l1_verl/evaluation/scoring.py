"""Scores per split with their uncertainty, and how the answers came about.

An answer whose verdict is missing stays in ``n``, is in no mean, and makes the whole no result (`is_result`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from future_l1_verl.evaluation.runs import Record

RESAMPLES = 10_000

Scores = Mapping[str, float]


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``. Raises ValueError if there are none."""
    if len(values) == 0:
        raise ValueError("no values to resample")
    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    return percentile_interval([sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(RESAMPLES)])


def percentile_interval(means: Sequence[float]) -> tuple[float, float]:
    """What the middle 95 % of resampled means lie between."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def by_split(splits: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each split, sorted by its name, and of ``all``."""
    groups = {split: [i for i, other in enumerate(splits) if other == split] for split in sorted(set(splits))}
    return groups | {"all": list(range(len(splits)))}


def columns(scores: Sequence[Scores]) -> dict[str, list[float]]:
    """The values of each score over the answers, and of ``average``, the mean of an answer's scores, if it has several."""
    named = {name: [each[name] for each in scores] for name in (scores[0] if scores else ())}
    return named | ({"average": [float(np.mean(list(each.values()))) for each in scores]} if len(named) > 1 else {})


def score(parsed: Sequence[bool], scores: Sequence[Scores | None]) -> dict[str, Any]:
    """Figures of answers; ``scores`` is None where the verdict is missing. The one scoring of evaluation and of training.

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


def summarise(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Per split, and for ``all``, what `score` gives, and over all ``n`` answers: ``cut``, the share that the limit of tokens
    cut off, ``with_span``, the share with a latent span, ``spans`` and ``latents``, their means per answer, and where accuracy
    is scored ``majority``, the accuracy of always giving the most frequent right answer. ``reasoning_true`` is the share whose
    reasons are true, where the data say which are."""
    groups = by_split([record.split for record in records])
    return {split: _summary([records[i] for i in group]) for split, group in groups.items()}


def _summary(records: Sequence[Record]) -> dict[str, Any]:
    figures = score([record.parsed for record in records], [record.scores for record in records])
    if "accuracy" in figures["scores"]:
        figures["majority"] = max(Counter(record.truth for record in records).values()) / len(records)
    if all(record.reasoning_true is not None for record in records):
        figures["reasoning_true"] = float(np.mean([record.reasoning_true for record in records]))
    return figures | {
        "cut": float(np.mean([record.finish_reason == "length" for record in records])),
        "with_span": float(np.mean([len(record.spans) > 0 for record in records])),
        "spans": float(np.mean([len(record.spans) for record in records])),
        "latents": float(np.mean([sum(record.spans) for record in records])),
    }


def is_result(summary: Mapping[str, Mapping[str, Any]], unanswered: int = 0) -> bool:
    """Whether no verdict is missing, and no question is without an answer."""
    return summary["all"]["missing"] == 0 and not unanswered


def with_interval(mean: float, interval: Sequence[float]) -> str:
    return f"{mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def as_table(summary: Mapping[str, Mapping[str, Any]], title: str, unanswered: int = 0) -> Table:
    """A row per split; scores with their 95 % intervals. A summary that is no result says so below."""
    whole, wrong = summary["all"], None
    if not is_result(summary, unanswered):
        lacking = f", {unanswered} questions have no answer" if unanswered else ""
        wrong = f"NOT A RESULT: {whole['missing']} of {whole['n']} verdicts are missing{lacking}"
    names = list(whole["scores"])
    extra = [name for name in ("majority", "reasoning_true") if name in whole]
    table = Table(title=title, caption=wrong, caption_style="bold red")
    scored = [f"{name} (95 %)" for name in names]
    for column in ("split", "n", "missing", "cut", "parsed", *scored, *extra, "spans", "latents"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, row in summary.items():
        scores = [with_interval(**row["scores"][name]) if name in row["scores"] else "-" for name in names]
        counts = [str(row["n"]), str(row["missing"]), _number(row["cut"]), _number(row["parsed"])]
        shares = [_number(row.get(name)) for name in extra]
        table.add_row(split, *counts, *scores, *shares, f"{row['spans']:.2f}", f"{row['latents']:.2f}")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
