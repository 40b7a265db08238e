"""Makes the page of a run: settings, figures per split, pictures, and answers with their spans."""

import json
import re
from collections.abc import Sequence
from importlib import resources
from string import ascii_uppercase
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from future_l1_verl.evaluation.inspection.answers import Answer, Thumbnail
from future_l1_verl.evaluation.inspection.replies import Span, parts
from future_l1_verl.evaluation.runs import Record, Run
from future_l1_verl.evaluation.scoring import summarise
from future_l1_verl.rewards.answer import chosen_option

TEMPLATE = "page.html.jinja"
_LETTERED = re.compile(r"\s*\(?[A-J][).:]\s+")


class Picture(NamedTuple):
    """A ``file``, relative to the page, and its description."""

    file: str
    about: str


class Verdict(NamedTuple):
    """``kind`` is right, wrong, graded, unparsed or missing; ``label`` has all scores, ``group`` only the answer's."""

    kind: str
    label: str
    group: str


class Option(NamedTuple):
    letter: str
    text: str
    right: bool
    chosen: bool


def render(run: Run, pictures: Sequence[Picture], skipped: Sequence[str], answers: Sequence[Answer]) -> str:
    """Returns the HTML. Everything in the run is escaped: markup in replies and questions is shown as text.

    ``skipped`` are sentences on missing figures.
    """
    summary = summarise(run.records)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["span"] = lambda part: isinstance(part, Span)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    verdicts = [verdict(answer.record) for answer in answers]
    return template.render(
        run=run,
        settings={name: _shown(value) for name, value in run.settings.items()},
        summary=summary,
        scores=list(dict.fromkeys(name for row in summary.values() for name in row["scores"])),
        pictures=pictures,
        skipped=skipped,
        answers=[
            {
                "record": answer.record,
                "nearest": answer.nearest,
                "clip": clip(answer),
                "verdict": given,
                "question": question(answer.record),
                "options": options(answer.record),
                "parts": parts(answer.record),
            }
            for answer, given in zip(answers, verdicts, strict=True)
        ],
        splits=sorted({answer.record.split for answer in answers}),
        verdicts=sorted({given.group for given in verdicts}),
    )


def verdict(record: Record) -> Verdict:
    if record.scores is None:
        return Verdict("missing", "no verdict", "no verdict")
    if not record.parsed:
        return Verdict("unparsed", "unparsed", "unparsed")
    if "accuracy" in record.scores:
        outcome = "right" if record.scores["accuracy"] else "wrong"
        return Verdict(outcome, outcome, outcome)
    label = ", ".join(f"{name} {score:g}" for name, score in record.scores.items())
    return Verdict("graded", label, f"answer {record.scores['answer']:g} of 5")


def clip(answer: Answer) -> list[tuple[Thumbnail, bool]]:
    """Returns frames in order of time, each with whether the model was shown it."""
    frames = [*((frame, True) for frame in answer.shown), *((frame, False) for frame in answer.future)]
    return sorted(frames, key=lambda frame: frame[0].number)


def question(record: Record) -> str:
    """Returns the problem without placeholders of frames and without the lines that list its options."""
    listed = {_unlettered(option) for option in record.options}
    lines = record.problem.replace("<image>", "").strip().splitlines()
    return "\n".join(line for line in lines if _unlettered(line) not in listed)


def options(record: Record) -> list[Option]:
    right = chosen_option(record.truth, record.options)
    chosen = None if record.answer is None else chosen_option(record.answer, record.options)
    return [
        Option(letter, _unlettered(text), place == right, place == chosen)
        for place, (letter, text) in enumerate(zip(ascii_uppercase, record.options, strict=False))
    ]


def _unlettered(option: str) -> str:
    return _LETTERED.sub("", option, count=1).strip()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
