"""The folder of an evaluation run: its settings, an answer per line, and a summary.

    settings.json       the questions and options; a folder is continued only with the same settings
    answers.jsonl       a `Record` per line, in the order in which they were finished
    unanswered.jsonl    the questions that the last start could not ask or got no answer to, with the reason
    latents/ROW.safetensors     ``latents [slots, H]`` of an answer, on request
    summary.json        figures per split (scoring.py)
    comparison.json     for a run with an intervention: comparison with the intact run (comparison.py)

An incomplete line (the process was killed) does not count. If a row has two lines, the last counts: it has the verdict that the
first lacks.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from future_l1_verl.data.rows import BadRow
from future_l1_verl.files import keep_settings, whole

ANSWERS, SETTINGS, SUMMARY, LATENTS = "answers.jsonl", "settings.json", "summary.json", "latents"
COMPARISON, UNANSWERED = "comparison.json", "unanswered.jsonl"


class RunError(ValueError):
    """A folder is not a run, or not the right one; the message names it and what is wrong."""


@dataclass(frozen=True)
class Record:
    """An answer with its question, verdict and latents.

    ``row`` is the number of the question in its data; ``roles`` a letter per token (`ROLES`); ``spans`` the number of latents
    of each span; ``answer`` the text in ``<answer>``, None if there is none. ``parsed`` and ``scores`` are the verdict;
    ``scores`` None means that there is none, and ``error`` says why. ``reasoning_true`` is None without true reasons.
    ``frames`` are the 0-based numbers of the frames that were shown and ``future`` those of the future frames that the data
    names; ``donor`` is the row whose latents were swapped in.
    """

    row: int
    id: str
    split: str
    prompt_sha256: str
    problem: str
    options: list[str]
    truth: str
    video: str
    frames: list[int]
    future: list[int]
    text: str
    token_ids: list[int]
    roles: str
    spans: list[int]
    finish_reason: str
    answer: str | None
    parsed: bool = False
    scores: dict[str, float] | None = None
    error: str | None = None
    reasoning_true: bool | None = None
    donor: int | None = None


@dataclass(frozen=True)
class Run:
    """``records`` in the order of their rows."""

    folder: Path
    settings: dict[str, Any]
    records: list[Record] = field(repr=False)

    @property
    def missing(self) -> list[Record]:
        """Answers without a verdict."""
        return [record for record in self.records if record.scores is None]


def read(folder: Path) -> Run:
    """Returns a run, finished or not. Raises RunError if the folder holds none."""
    settings = folder / SETTINGS
    if not settings.is_file():
        raise RunError(f"{folder}: holds no {SETTINGS}; is it a folder that `evaluation run` wrote to?")
    return Run(folder, json.loads(settings.read_text()), records(folder))


def read_finished(folder: Path) -> Run:
    """Returns a finished run. Raises RunError if it was not finished or verdicts are missing."""
    run = read(folder)
    questions = run.settings["questions"]
    if len(run.records) < questions or run.missing:
        raise RunError(
            f"{folder}: is no result: {len(run.records)} of {questions} questions are answered ({UNANSWERED} says why others "
            f"are not), {len(run.missing)} verdicts are missing; start the same `evaluation run` again"
        )
    return run


def records(folder: Path) -> list[Record]:
    """Returns a folder's answers so far, by row; none without a file. Raises RunError naming a line that is not an answer."""
    path = folder / ANSWERS
    if not path.is_file():
        return []
    by_row = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise RunError(f"{path}: line {number} is no answer ({error})") from error
            by_row[record.row] = record
    return [by_row[row] for row in sorted(by_row)]


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run, or compares them with those in the folder. Raises ValueError naming what differs."""
    keep_settings(folder / SETTINGS, settings)
    (folder / UNANSWERED).unlink(missing_ok=True)
    answers = folder / ANSWERS
    if answers.is_file():
        text = answers.read_bytes()
        with answers.open("rb+") as file:
            file.truncate(text.rfind(b"\n") + 1)


def append(folder: Path, finished: Sequence[Record]) -> None:
    with (folder / ANSWERS).open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(record)) + "\n" for record in finished))


def add_unanswered(folder: Path, rows: Sequence[BadRow]) -> None:
    """Lists questions that have no answer."""
    with (folder / UNANSWERED).open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row._asdict()) + "\n" for row in rows))


def unanswered(folder: Path) -> list[BadRow]:
    """Returns the questions that the last start could not ask, or got no answer to."""
    path = folder / UNANSWERED
    return [BadRow(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def save_latents(folder: Path, row: int, latents: Tensor) -> None:
    """Writes the ``latents [slots, H]`` of an answer."""
    with whole(folder / LATENTS / f"{row}.safetensors") as temporary:
        save_file({"latents": latents.contiguous()}, temporary)


def latents(folder: Path, row: int) -> Tensor:
    """Returns the latents ``[slots, H]`` of an answer. Raises RunError if they were not kept."""
    path = folder / LATENTS / f"{row}.safetensors"
    if not path.is_file():
        raise RunError(f"{path}: does not exist; latents are kept by `evaluation run --save-latents`")
    return load_file(path)["latents"]
