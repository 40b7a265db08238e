"""A row of a data set: the frames and the question, the right answer, and the response that stage 1 learns.

Every format (``formats``) is converted to this one type, which checks all rules of a row. Stage 1, stage 2, evaluation and
curation get their rows from `future_l1_verl.data.reader`.
"""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from future_l1_verl.data.shape import in_shape
from future_l1_verl.data.twiff import POOL
from future_l1_verl.rewards.answer import TAG
from future_l1_verl.rewards.options import require_truth

FORMS = ("frames", "video")
"""The forms of observed frames in a prompt: as pictures, or as one video with their times."""
IMAGE, VIDEO = "<image>", "<video>"
PLACEHOLDER = re.compile(f"({IMAGE}|{VIDEO})")
_OTHER_PLACE = re.compile(rf"(?!(?-i:{IMAGE}|{VIDEO}))<\s*/?\s*r?(?:image|video)[\s_-]*\d*\s*/?\s*>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|\w+\|>")  # the form of Qwen's special tokens and of ours
_OF_A_RESPONSE = {IMAGE, "<reason>", "</reason>", "<answer>", "</answer>"}


class RowError(ValueError):
    """A row cannot be used. The message is the reason: what is wrong, then a colon and the details, so that reasons can be
    counted by the part before the colon. If a whole file is wrong, the message names the file."""


class BadRow(NamedTuple):
    """A row that cannot be used: its file and number, and the reason."""

    source: str
    reason: str


class Turn(NamedTuple):
    """One turn of a chat: ``role`` is system, user or assistant."""

    role: str
    text: str


class Picture(NamedTuple):
    """A picture of a row: the bytes of an image file, or its path."""

    content: bytes | str


class Clip(NamedTuple):
    """A clip that is shown as a whole, in frames spread evenly over it."""

    path: str


Shown = int | Picture | Clip


@dataclass(frozen=True, kw_only=True)
class Row:
    """``turns`` are the prompt; ``observed`` has an item for each ``<image>`` and ``<video>`` in it, in order: an entry
    (1-based) of TwiFF's pool of frames of ``video``, a picture, or, for a ``<video>``, a clip. ``response`` is the text that
    stage 1 learns, with an ``<image>`` for each of the ``future`` frames; empty if the row has none. ``truth`` is the right
    answer; with ``options`` it is one of them or its letter. ``category`` is used for counting; ``as_given``: pictures and
    clips are shown unchanged, whatever ``data.observed`` says. ``gains`` is the result of an earlier curation: the gain, and
    the numbers of right answers without and with the future frames.

    Raises RowError if the row breaks a rule.
    """

    turns: tuple[Turn, ...]
    observed: tuple[Shown, ...] = ()
    response: str = ""
    future: tuple[int | Picture, ...] = ()
    truth: str = ""
    options: tuple[str, ...] = ()
    video: str = ""
    id: str = ""
    category: str = ""
    data_source: str = ""
    as_given: bool = False
    gains: tuple[int, int, int] | None = None
    source: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        prompt = "".join(turn.text for turn in self.turns)
        texts = " ".join((prompt, self.response, self.truth, *self.options))
        if token := _SPECIAL.search(texts):
            raise RowError(f"text holds a special token: {token[0]}")
        try:
            "".join((texts, self.id, self.category, self.data_source)).encode()
        except UnicodeEncodeError as error:
            raise RowError(f"text is not Unicode: {error.reason}") from error
        entries = [entry for entry in (*self.observed, *self.future) if isinstance(entry, int)]
        if outside := [entry for entry in entries if not 1 <= entry <= POOL]:
            raise RowError(f"frames go outside 1..{POOL}: {outside}")
        if entries and not self.video:
            raise RowError("video is missing: frames are named, but no clip")
        _require_places("question", prompt, self.observed)
        if tag := _OTHER_PLACE.search(prompt):
            raise RowError(f"question has a place written in another way: {tag[0]}; <image> and <video> are known")
        if option := next((option for option in self.options if PLACEHOLDER.search(option)), None):
            raise RowError(f"option has the place of a picture or clip: {option!r:.80}")
        if not (self.as_given or self.question):
            raise RowError("question is empty")
        if self.response:
            _require_places("response", self.response, self.future)
            other = [tag for tag in TAG.findall(self.response) if tag not in _OF_A_RESPONSE]
            if other and not self.as_given:
                raise RowError(f"response has other tags: {', '.join(dict.fromkeys(other))}")
        if tag := TAG.search(self.truth):
            raise RowError(f"answer is not clear: {tag[0]} is left in it: {self.truth!r:.80}")
        if self.options:
            try:
                require_truth(self.truth, self.options)
            except ValueError as error:
                raise RowError(f"no option is the answer: {error}") from error

    @property
    def question(self) -> str:
        """The question without the places of frames: the user's last text, the only text that a judge sees."""
        return bare(next(turn.text for turn in reversed(self.turns) if turn.role == "user"))

    @property
    def clip(self) -> str:
        """The path of the clip whose frames are shown; empty if the row shows pictures, or several clips."""
        clips = {item.path for item in self.observed if isinstance(item, Clip)} | ({self.video} if self.video else set())
        return clips.pop() if len(clips) == 1 else ""

    @property
    def said(self) -> str:
        """The response in the paper's shape (section 1), unchanged if ``as_given``. Raises RowError if there is none."""
        if not self.response:
            raise RowError("no response to learn: the row is a question and its answer alone")
        if self.as_given:
            return self.response
        try:
            return in_shape(self.response, self.truth, len(self.future))
        except ValueError as error:
            raise RowError(str(error)) from error

    @property
    def files(self) -> list[str]:
        """The paths of all clips and pictures that the row needs."""
        # A clip gives its path, a picture its path or its bytes.
        shown = [self.video if isinstance(item, int) else item[0] for item in (*self.observed, *self.future)]
        return list(dict.fromkeys(path for path in shown if isinstance(path, str)))

    def require_answer(self) -> None:
        """Raises RowError if there is no right answer to compare with, or a file is missing."""
        if not self.truth:
            raise RowError("answer is missing: the row is one of stage 1 only")
        self.require_files()

    def require_response(self) -> None:
        """Raises RowError if there is nothing for stage 1 to learn in the paper's shape, or a file is missing."""
        self.said  # noqa: B018  raises
        self.require_files()

    def require_files(self) -> None:
        """Raises RowError naming the first clip or picture that is missing or empty."""
        for path in self.files:
            if not os.path.isfile(path):
                raise RowError(f"video or image is missing: {path}")
            if os.path.getsize(path) == 0:
                raise RowError(f"video or image is empty: {path}")


def bare(text: str) -> str:
    """Returns a text without the places of frames."""
    return PLACEHOLDER.sub("", text).strip()


def refuse(problems: list[str], shown: int = 20) -> None:
    """Raises RowError with the first ``shown`` problems, one per line, if there are any."""
    if problems:
        more = f"\n... and {len(problems) - shown} more" if len(problems) > shown else ""
        raise RowError("\n".join(problems[:shown]) + more)


def _require_places(name: str, text: str, shown: tuple[Shown, ...]) -> None:
    """Raises RowError unless each placeholder has an item of its kind."""
    places = PLACEHOLDER.findall(text)
    wanted = [VIDEO if isinstance(item, Clip) else IMAGE for item in shown]
    if places != wanted:
        frames = "observed frames" if name == "question" else "future frames"
        raise RowError(
            f"placeholders do not fit: {places.count(IMAGE)} <image> and {places.count(VIDEO)} <video> in the {name}, "
            f"{wanted.count(IMAGE)} {frames} and {wanted.count(VIDEO)} clips"
        )
