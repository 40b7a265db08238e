"""The tasks: FutureBench, TwiFF-Bench, the synthetic set, and any other rows with a right answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from future_l1_verl.data.reader import read as read_rows
from future_l1_verl.data.rows import BadRow, Row, RowError, refuse

# FutureBench's question_type (paper section 5): its five-hop questions ask for the events in between.
FUTUREBENCH_SPLITS = {"hop1": "1-hop", "hop2": "2-hop", "hop3": "3-hop", "hop5": "interp"}


@dataclass(frozen=True)
class Task:
    """``max_tokens`` of a reply as in paper section 5; ``marks``: a judge gives 0 to 5 for reasoning and answer, instead of
    right or wrong; ``reasons``: a row's response has the true reasons (reasoning.py). ``split`` returns the split of a row;
    it raises RowError for a row that is not a question of the task."""

    max_tokens: int
    marks: bool
    split: Callable[[Row], str]
    reasons: bool = False


def read(task: Task, data: Sequence[Path], videos: str | None, limit: int | None = None) -> tuple[list[Row], list[BadRow]]:
    """Returns the questions of files, with id and split as ``id`` and ``category``, and the rows that cannot be asked.

    ``videos`` says where clips are, by default beside the data. Raises RowError for a file that cannot be read, and, naming
    the first 20 rows, if none can be asked.
    """
    questions, bad = [], []
    for row in read_rows(data, videos, limit, require=lambda row: (row.require_answer(), task.split(row))):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            questions.append(replace(row, id=row.id or str(row.number), category=task.split(row)))
    if not questions:
        refuse([f"{source}: {reason}" for source, reason in bad])
    return questions, bad


def _futurebench(row: Row) -> str:
    if row.category not in FUTUREBENCH_SPLITS:
        raise RowError(f"question_type is not one of {', '.join(FUTUREBENCH_SPLITS)}: {row.category!r}")
    if not row.options:
        raise RowError("no options: a question of FutureBench has some")
    return FUTUREBENCH_SPLITS[row.category]


TASKS = {
    "futurebench": Task(2048, False, _futurebench),
    "twiffbench": Task(4096, True, lambda row: row.category or "all questions"),
    "synthetic": Task(96, False, lambda row: row.category or row.data_source, reasons=True),
    "rl": Task(2048, False, lambda row: row.category or row.data_source),
}
