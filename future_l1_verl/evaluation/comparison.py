"""Compares two runs, question by question, and combines several runs (seeds) into one figure.

Both need runs of the same questions with all verdicts, as `runs.read_finished` guarantees.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import binomtest

from future_l1_verl.evaluation.runs import Record, Run, RunError
from future_l1_verl.rewards.answer import LETTERS, chosen_option, normalise
from future_l1_verl.statistics import (
    RESAMPLES,
    bootstrap_interval,
    by_split,
    columns,
    percentile_interval,
    with_interval,
)
from future_l1_verl.tables import empty_table


def compare(a: Run, b: Run) -> dict[str, dict[str, Any]]:
    """Returns, per split and for ``all``: ``n``, ``changed`` and ``scores``: by name the means of ``a`` and ``b`` and their
    ``difference`` b - a with its 95 % ``interval``, a bootstrap over questions, each with both of its scores.

    ``changed`` is the share of questions whose two answers choose different things; answers that name no option, or that are
    missing, count as the same choice. Accuracy also has ``mcnemar``: the numbers of questions that ``only_a`` and ``only_b``
    got right, and the ``p`` of McNemar's exact test. Raises RunError unless both are runs of the same questions.
    """
    _require_same_questions([a, b])
    groups = by_split([record.split for record in a.records])
    return {split: _compared([a.records[i] for i in group], [b.records[i] for i in group]) for split, group in groups.items()}


def _compared(a: Sequence[Record], b: Sequence[Record]) -> dict[str, Any]:
    of_a, of_b = (columns([record.scores for record in records]) for records in (a, b))
    compared = {
        "n": len(a),
        "changed": float(np.mean([_choice(one) != _choice(other) for one, other in zip(a, b, strict=True)])),
        "scores": {name: _difference(np.array(of_a[name]), np.array(of_b[name])) for name in of_a},
    }
    if "accuracy" in of_a:
        compared["mcnemar"] = _mcnemar(of_a["accuracy"], of_b["accuracy"])
    return compared


def _choice(record: Record) -> int | str | None:
    # If the truth is a letter and no options are given, the question contains them.
    options = record.options or (LETTERS if normalise(record.truth).upper() in list(LETTERS) else None)
    if record.answer is None:
        return None
    return chosen_option(record.answer, options) if options else normalise(record.answer)


def _difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    difference = b - a
    return {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": float(difference.mean()),
        "interval": list(bootstrap_interval(difference)),
    }


def _mcnemar(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    only_a = sum(one > other for one, other in zip(a, b, strict=True))
    only_b = sum(one < other for one, other in zip(a, b, strict=True))
    p = float(binomtest(only_b, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p": p}


def aggregate(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Returns, per split and for ``all``: ``n``, ``runs``, ``scores``: by name ``each`` run's mean, their ``mean``, sample
    ``deviation`` (n - 1) and a 95 % ``interval`` of the mean for other questions and other runs (`both_ways`).

    Raises RunError if there are fewer than two runs, or if they are not of the same questions.
    """
    if len(runs) < 2:
        raise RunError(f"{len(runs)} runs have no deviation; name at least two")
    _require_same_questions(runs)
    groups = by_split([record.split for record in runs[0].records])
    return {split: _aggregated([[run.records[i] for i in group] for run in runs]) for split, group in groups.items()}


def _aggregated(runs: Sequence[Sequence[Record]]) -> dict[str, Any]:
    scores = [columns([record.scores for record in records]) for records in runs]
    tables = {name: np.array([of_run[name] for of_run in scores]).T for name in scores[0]}
    return {
        "n": len(runs[0]),
        "runs": len(runs),
        "scores": {
            name: {
                "each": table.mean(axis=0).tolist(),
                "mean": float(table.mean()),
                "deviation": float(table.mean(axis=0).std(ddof=1)),
                "interval": list(both_ways(table)),
            }
            for name, table in tables.items()
        },
    }


def both_ways(table: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean of ``table [questions, runs]`` when both are resampled independently,
    with replacement; a question is drawn for all runs at once (the pigeonhole bootstrap, Owen 2007).

    It captures (k - 1) / k of the variance between k runs: with two or three runs it is too narrow.
    """
    questions, runs = table.shape
    rng = np.random.default_rng(seed)
    return percentile_interval(
        [
            table[rng.integers(questions, size=questions)].mean(axis=0)[rng.integers(runs, size=runs)].mean()
            for _ in range(RESAMPLES)
        ]
    )


def _require_same_questions(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if [record.row for record in run.records] != [record.row for record in first.records]:
            raise RunError(
                f"{run.folder}: has other rows than {first.folder} ({len(run.records)} and {len(first.records)}); "
                "both must be of the same data and the same --limit"
            )
        for there, here in zip(first.records, run.records, strict=True):
            for field, value in _question(here).items():
                if value != (other := _question(there)[field]):
                    raise RunError(
                        f"{run.folder}: row {here.row} has the {field} {value!r}, in {first.folder} it is {other!r}; "
                        "both must be of the same data and task"
                    )


def _question(record: Record) -> dict[str, Any]:
    """Returns the fields that two runs must share to be compared; prompts may differ, since models do."""
    return {
        "id": record.id,
        "split": record.split,
        "truth": record.truth,
        "options": record.options,
        "scores": sorted(record.scores),
    }


def comparison_tables(compared: Mapping[str, Mapping[str, Any]], a: str, b: str) -> tuple[Table, ...]:
    """Returns a table with a row per split and score, and for accuracy one of the questions that one run alone answers right;
    ``a`` and ``b`` name the runs."""
    scores = empty_table("split", "score", "n", "A", "B", "B - A (95 %)", "changed", title=f"{b} (B) against {a} (A)")
    alone = empty_table("split", "only A right", "only B right", "McNemar p")
    for split, row in compared.items():
        for name, score in row["scores"].items():
            difference = with_interval(score["difference"], score["interval"])
            means = (f"{score['a']:.3f}", f"{score['b']:.3f}")
            scores.add_row(split, name, str(row["n"]), *means, difference, f"{row['changed']:.3f}")
        if test := row.get("mcnemar"):
            alone.add_row(split, str(test["only_a"]), str(test["only_b"]), f"{test['p']:.3g}")
    return (scores, alone) if alone.row_count else (scores,)


def aggregate_tables(aggregated: Mapping[str, Mapping[str, Any]], title: str) -> tuple[Table, Table]:
    """Returns a table of the means with a row per split and score, and one of each run's."""
    means = empty_table("split", "score", "n", "runs", "mean (95 %)", "std", title=title)
    runs = range(1, next(iter(aggregated.values()))["runs"] + 1)
    each = empty_table("split", "score", *(f"run {number}" for number in runs))
    for split, row in aggregated.items():
        for name, score in row["scores"].items():
            mean = with_interval(score["mean"], score["interval"])
            means.add_row(split, name, str(row["n"]), str(row["runs"]), mean, f"{score['deviation']:.3f}")
            each.add_row(split, name, *(f"{value:.3f}" for value in score["each"]))
    return means, each
