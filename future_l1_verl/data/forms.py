"""A row of a data set as a candidate, whichever of three forms it has.

TwiFF: ``video, question, answer, question_images_index, reasoning_images_index, meta_data``; the answer is the whole reasoning
with an ``<image>`` per future frame, or a short one. Conversations (Future-L1-50K): ``conversations, video, image,
reasoning_image, answer``. Questions (FutureBench, V1-33K): ``video_path`` and ``qa`` with ``Question, Options, Answer``, or
the same fields flat; such a row names no frames, so that the whole pool is observed.

A row that makes no candidate raises RowError. Its message is the reason alone, without the row's source: what is wrong, then a
colon and the figures, so that reasons can be counted by what stands before the colon.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from future_l1_verl.rewards.options import asked, inlined, texts
from future_l1_verl.data.rows import Row, RowError, turn, without_markers
from future_l1_verl.data.twiff import POOL
from future_l1_verl.rewards.answer import answer_text, chosen_option

# All fields that any form is read from.
FIELDS = (
    *("id", "video", "video_path", "meta_data", "category", "question_type", "split"),
    *("question", "answer", "question_images_index", "reasoning_images_index"),
    *("conversations", "image", "reasoning_image", "options"),
    *("qa", "Question", "problem", "Options", "Answer"),
)
_TAG = re.compile("</?answer>|<image>")
_LETTER = re.compile(r"[A-Ja-j]")


class _Asked(NamedTuple):
    """What the forms say differently."""

    question: str
    answer: str
    options: list[str]
    image: list[int]
    reasoning_image: list[int]
    response: str


def candidate(row: object, source: str, videos: Path) -> Row:
    """The candidate of a row; absolute paths become relative to the folder ``videos``. Raises RowError."""
    if not isinstance(row, dict):
        raise RowError(f"no object with fields: {row!r:.80}")
    video = text(row, "video", "video_path")
    found = _form(row)
    if found.options and chosen_option(found.answer, found.options) is None:
        raise RowError(f"no option is the answer: {found.answer!r:.80} is not one of {found.options}")
    return {
        "id": _id(row, video, found),
        "source": source,
        "video": _relative(Path(video), videos) if os.path.isabs(video) else video,
        "category": _category(row),
        **found._asdict(),
    }


def _relative(video: Path, videos: Path) -> str:
    """Folders are resolved, since ``..`` leads out of where a link points to; the clip is not, since its name holds its id."""
    return os.path.relpath(video.parent.resolve() / video.name, videos.resolve())


def _form(row: Row) -> _Asked:
    if row.get("conversations") is not None:
        return _conversation(row)
    if "question_images_index" in row or "reasoning_images_index" in row:
        return _twiff(row)
    if any(row.get(name) is not None for name in ("qa", "question", "Question", "problem")):
        return _question(row)
    raise RowError(f"no known form: neither TwiFF nor conversations nor a question, but {', '.join(row):.80}")


def _twiff(row: Row) -> _Asked:
    image, future = indices(row, "question_images_index"), indices(row, "reasoning_images_index")
    answer = without_markers(text(row, "answer"))
    response = answer if "<image>" in answer or "<answer>" in answer else ""
    return _framed(text(row, "question"), _short(response, answer), _options(row), image, future, response)


def _conversation(row: Row) -> _Asked:
    image, future = indices(row, "image"), indices(row, "reasoning_image")
    try:
        question, said = (turn(row | {"source": "row"}, speaker).strip() for speaker in ("human", "gpt"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RowError(f"conversations are not a text of human and one of gpt: {row['conversations']!r:.80}") from error
    response = without_markers(said)
    answer = _short(response, "" if answer_text(response) else text(row, "answer"))
    return _framed(question, answer, _options(row), image, future, response)


def question(row: Row) -> tuple[str, str, list[str]]:
    """Question, answer and options of a row of questions; the options are those inlined in the question if no field has any.

    Raises RowError, without the row's source.
    """
    fields = row | _mapping(row, "qa")
    question, answer = text(fields, "question", "Question", "problem"), _short("", text(fields, "answer", "Answer"))
    options = _options(fields) or inlined(question)
    if not options and _LETTER.fullmatch(answer):
        raise RowError(f"no options: the answer is {answer!r}, but neither a field nor the question has options")
    return question, answer, options


def _question(row: Row) -> _Asked:
    return _framed(*question(row), list(range(1, POOL + 1)), [], "")


def _framed(
    question: str, answer: str, options: list[str], image: list[int], reasoning_image: list[int], response: str
) -> _Asked:
    """With a placeholder for each frame. Raises RowError if the texts have others."""
    if not image:
        raise RowError("no observed frame")
    question = asked(question, options)
    placeholders = question.count("<image>")
    if placeholders not in (0, len(image)):
        raise RowError(f"placeholders do not fit: {placeholders} <image> in the question, {len(image)} observed frames")
    if response and response.count("<image>") != len(reasoning_image):
        count = response.count("<image>")
        raise RowError(f"placeholders do not fit: {count} <image> in the response, {len(reasoning_image)} future frames")
    shown = question if placeholders else "<image>" * len(image) + question
    return _Asked(shown, answer, options, image, reasoning_image, response)


def _short(response: str, field: str) -> str:
    """What stands in ``<answer>``, or else the field, or what follows the last frame if it holds the whole reasoning."""
    answer = answer_text(response) or answer_text(field) or field.rpartition("<image>")[2].strip()
    if not answer:
        raise RowError(f"answer is empty: nothing follows the last <image> of {field!r:.80}")
    if _TAG.search(answer):
        raise RowError(f"answer is not clear: one pair of <answer> and </answer> and no other tag is needed: {answer!r:.80}")
    return answer


def _options(row: Row) -> list[str]:
    given = row.get("options") or row.get("Options")
    return texts(given) if given else []


def indices(row: Row, name: str) -> list[int]:
    """A field that names entries of the pool. Raises RowError, without the row's source."""
    value = row.get(name)
    if value is None:
        raise RowError(f"{name} is missing")
    if not isinstance(value, list) or any(type(index) is not int for index in value):  # True is an int, too
        raise RowError(f"{name} is no list of frame numbers: {value!r:.80}")
    if any(not 1 <= index <= POOL for index in value):
        raise RowError(f"{name} goes outside 1..{POOL}: {value}")
    return value


def text(row: Row, *names: str) -> str:
    """The first of some fields that is there, which must hold a text. Raises RowError, without the row's source."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise RowError(f"{' or '.join(names)} is missing")
    if not isinstance(row[name], str):
        raise RowError(f"{name} is no text: {row[name]!r:.80}")
    if not row[name].strip():
        raise RowError(f"{name} is empty")
    return row[name].strip()


def _mapping(row: Row, name: str) -> dict[str, Any]:
    """A field that is an object, or one as JSON; empty if it is not there."""
    value = row.get(name) or {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise RowError(f"{name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowError(f"{name} is no object: {value!r:.80}")
    return value


def _category(row: Row) -> str:
    """Of the first field that says one, in lower case."""
    said = (
        _mapping(row, "meta_data").get("classification"),
        *(row.get(name) for name in ("category", "question_type", "split")),
    )
    return next((text.strip().lower() for text in said if isinstance(text, str)), "")


def _id(row: Row, video: str, found: _Asked) -> str:
    """The row's own, or a digest of what it asks."""
    match row.get("id"):
        case None | "":
            return hashlib.sha256(f"{video}\0{found.question}\0{found.answer}".encode()).hexdigest()[:24]
        case str() | int() as given:
            return str(given)
        case other:
            raise RowError(f"id is neither a text nor a number: {other!r:.80}")
