"""What is asked: FutureBench, TwiFF-Bench, the synthetic set, and any file of stage 2's form."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from future_l1_verl.data.forms import candidate, indices, question, text
from future_l1_verl.rewards.options import asked, texts
from future_l1_verl.data.rows import RL_COLUMNS, Row, RowError, folder_of, read_rows, refuse, split_of
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

    @property
    def problem(self) -> str:
        """The text without the places of frames."""
        return self.text.replace("<image>", "").strip()


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
    folder = (videos or folder_of(data)).absolute()
    questions, problems = [], []
    for number, row in enumerate(read_rows(data, task.columns, folder)[:limit]):
        try:
            found = task.question(row, number, folder)
            if not os.path.isfile(found.video):
                raise RowError(f"video is missing: {found.video}; clips are looked for in {folder} (--videos)")
        except RowError as error:
            problems.append(f"{row['source']}: {str(error).removeprefix(row['source'] + ': ')}")
            continue
        questions.append(found)
    refuse(problems)
    return questions


def _futurebench(row: Row, number: int, videos: Path) -> Question:
    if (kind := text(row, "question_type")) not in FUTUREBENCH_SPLITS:
        raise RowError(f"question_type is one of {', '.join(FUTUREBENCH_SPLITS)}, not {kind!r}")
    said, truth, options = question(row)
    if chosen_option(truth, options) is None:
        raise RowError(f"qa: the answer {truth!r} is not one of the options {options}")
    if "<image>" in (said := asked(said, options)):
        raise RowError(f"qa: frames are shown before the question, which has an <image> of its own: {said!r:.80}")
    video = str(videos / text(row, "video_path"))
    return Question(number, row["source"], _id(row, number), FUTUREBENCH_SPLITS[kind], said, truth, options, video, None, [])


def _twiffbench(row: Row, number: int, videos: Path) -> Question:
    found = candidate(row, row["source"], videos)
    return Question(
        row=number,
        source=row["source"],
        id=_id(row, number),  # not the candidate's, which would depend on where the clips are
        split=found["category"] or "all questions",
        text=found["question"],
        truth=found["answer"],
        options=found["options"],
        video=row["video"],
        image=found["image"],
        future=found["reasoning_image"],
    )


def _rl(row: Row, number: int, videos: Path) -> Question:
    problem, truth, image = text(row, "problem"), text(row, "answer"), indices(row, "image")
    options = texts(row["options"]) if row.get("options") else []
    if options and chosen_option(truth, options) is None:
        raise RowError(f"answer: {truth!r} is not one of the options {options}")
    if problem.count("<image>") != len(image):
        raise RowError(f"image: {problem.count('<image>')} <image> in problem but {len(image)} entries")
    return Question(
        row=number,
        source=row["source"],
        id=_id(row, number),
        split=split_of(row),
        text=row["problem"],  # to the letter what stage 2 trains with
        truth=truth,
        options=options,
        video=text(row, "video"),
        image=image,
        future=indices(row, "reasoning_image") if row.get("reasoning_image") else [],
    )


def _id(row: Row, number: int) -> str:
    return str(number if row.get("id") in (None, "") else row["id"])


TASKS = {
    "futurebench": Task(2048, False, ("question_type", "video_path"), _futurebench),
    "twiffbench": Task(4096, True, ("video",), _twiffbench),
    "synthetic": Task(96, False, RL_COLUMNS, _rl),
    "rl": Task(2048, False, RL_COLUMNS, _rl),
}
