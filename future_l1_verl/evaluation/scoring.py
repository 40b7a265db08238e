"""The summary of a run and its tables: scores per split with their uncertainty, and statistics of the answers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from future_l1_verl.evaluation.runs import Record
from future_l1_verl.files import as_json
from future_l1_verl.statistics import by_split, score, with_interval
from future_l1_verl.tables import empty_table


def summarise(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Returns, per split and for ``all``, the result of `score`, and over all ``n`` answers: ``cut``, the share cut off by the
    token limit, ``with_span``, the share with a latent span, ``spans`` and ``latents``, their means per answer, and with
    accuracy ``majority``, the accuracy of always giving the most frequent right answer. ``reasoning_true`` is the share with
    true reasons, if the data have them."""
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
    """Returns whether all questions have an answer and all answers a verdict."""
    return summary["all"]["missing"] == 0 and not unanswered


def as_tables(summary: Mapping[str, Mapping[str, Any]], title: str, unanswered: int = 0) -> tuple[Table, Table]:
    """Returns a table with a row per split and score, with 95 % intervals, and one of the answers with a row per split; the
    first has a note if the summary is incomplete."""
    whole, wrong = summary["all"], None
    if not is_result(summary, unanswered):
        lacking = f", {unanswered} questions have no answer" if unanswered else ""
        wrong = f"NOT A RESULT: {whole['missing']} of {whole['n']} verdicts are missing{lacking}"
    scores = empty_table("split", "score", "n", "missing", "mean (95 %)", title=title, caption=wrong, caption_style="bold red")
    shares = [name for name in ("parsed", "cut", "majority", "reasoning_true") if name in whole]
    answers = empty_table("split", *(name.replace("_", " ") for name in shares), "spans", "latents")
    for split, row in summary.items():
        for name in whole["scores"]:
            mean = with_interval(**row["scores"][name]) if name in row["scores"] else "-"
            scores.add_row(split, name, str(row["n"]), str(row["missing"]), mean)
        used = (f"{row[name]:.2f}" for name in ("spans", "latents"))
        answers.add_row(split, *(_number(row.get(name)) for name in shares), *used)
    return scores, answers


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show(found: Mapping[str, Any], tables: Iterable[Table], file: Path | None) -> None:
    """Prints tables of figures, and writes the figures to a JSON file if one is given."""
    Console().print(*tables)
    if file is not None:
        file.write_text(as_json(found))
