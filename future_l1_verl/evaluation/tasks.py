"""What is asked: FutureBench, TwiFF-Bench, the synthetic set, and any file of stage 2's form."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from future_l1_verl.data.forms import candidate, question
from future_l1_verl.data.options import asked
from future_l1_verl.data.rows import RL_COLUMNS, Row, RowError, read_rows
from future_l1_verl.rewards.answer import chosen_option

# FutureBench's question_type (paper section 5): its five-hop questions ask for what lies between.
FUTUREBENCH_SPLITS = {"hop1": "1-hop", "hop2": "2-hop", "hop3": "3-hop", "hop5": "interp"}


@dataclass(frozen=True)
class Question:
    """``row`` is its number in the data. ``image`` are the observed frames as entries of TwiFF's pool, and ``text`` then has an
    ``<image>`` for each; None means frames spread evenly over the clip, shown before ``text``. ``future`` are entries as well.
    """

    row: int
    source: str
    id: str
    split: str
    text: str
    truth: str
    options: list[str]
    video: str
    image: list[int] | None
    future: list[int]


@dataclass(frozen=True)
class Task:
    """``max_tokens`` of a reply as in paper section 5; ``marks``: a judge gives 0 to 5 for reasoning and answer, instead of
    right or wrong. ``question`` makes one of a row, whose clips are in a folder; it raises RowError."""

    max_tokens: int
    marks: bool
    columns: tuple[str, ...]
    question: Callable[[Row, int, Path], Question]


def read(task: Task, data: Path, videos: Path | None, limit: int | None = None) -> list[Question]:
    """The questions of a parquet, JSON or JSON-lines file or a folder of ``datasets.save_to_disk``; ``videos`` is where clips
    are, by default beside the data. Raises RowError naming all rows (the first 20) that are no question or lack their clip."""
    data = data.resolve()
    beside = data if data.is_dir() else data.parent
    folder = videos.resolve() if videos else beside
    questions, problems = [], []
    for number, row in enumerate(read_rows(data, task.columns)[:limit]):
        if row.get("video") and Path(row["video"]).is_relative_to(beside):
            row["video"] = str(folder / Path(row["video"]).relative_to(beside))  # read_rows looks beside the data
        try:
            found = task.question(row, number, folder)
            if not os.path.isfile(found.video):
                raise RowError(f"video is missing: {found.video}; clips are looked for in {folder} (--videos)")
        except RowError as error:
            problems.append(f"{row['source']}: {str(error).removeprefix(row['source'] + ': ')}")
            continue
        questions.append(found)
    if problems:
        more = f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise RowError("\n".join(problems[:20]) + more)
    return questions


def _futurebench(row: Row, number: int, videos: Path) -> Question:
    if (kind := row.get("question_type")) not in FUTUREBENCH_SPLITS:
        raise RowError(f"question_type is one of {', '.join(FUTUREBENCH_SPLITS)}, not {kind!r}")
    text, truth, options = question(row)
    if chosen_option(truth, options) is None:
        raise RowError(f"qa: the answer {truth!r} is not one of the options {options}")
    name, split = str(row.get("id", number)), FUTUREBENCH_SPLITS[kind]
    video = str(videos / row["video_path"])
    return Question(number, row["source"], name, split, asked(text, options), truth, options, video, None, [])


def _twiffbench(row: Row, number: int, videos: Path) -> Question:
    found = candidate(row, row["source"], videos)
    return Question(
        row=number,
        source=row["source"],
        id=found["id"],
        split=found["category"] or "all questions",
        text=found["question"],
        truth=found["answer"],
        options=found["options"],
        video=str(videos / found["video"]),
        image=found["image"],
        future=found["reasoning_image"],
    )


def _rl(row: Row, number: int, videos: Path) -> Question:
    options = list(row.get("options") or ())
    if options and chosen_option(row["answer"], options) is None:
        raise RowError(f"answer: {row['answer']!r} is not one of the options {options}")
    if row["problem"].count("<image>") != len(row["image"]):
        raise RowError(f"image: {row['problem'].count('<image>')} <image> in problem but {len(row['image'])} entries")
    return Question(
        row=number,
        source=row["source"],
        id=str(row.get("id", number)),
        split=row.get("split") or row["data_source"],
        text=row["problem"],
        truth=row["answer"],
        options=options,
        video=row["video"],
        image=list(row["image"]),
        future=list(row.get("reasoning_image") or ()),
    )


TASKS = {
    "futurebench": Task(2048, False, ("question_type", "video_path"), _futurebench),
    "twiffbench": Task(4096, True, ("video",), _twiffbench),
    "synthetic": Task(96, False, RL_COLUMNS, _rl),
    "rl": Task(2048, False, RL_COLUMNS, _rl),
}
