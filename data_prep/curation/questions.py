"""Turns a candidate into two questions: with its observed frames only, and with future frames as hints (paper section 3)."""

from __future__ import annotations

import hashlib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data_prep.curation.candidates import Candidate, as_row
from data_prep.curation.scores import CONDITIONS
from future_l1_verl.data.clips import Clips, Frame
from future_l1_verl.data.prompts import Message, chat
from future_l1_verl.data.rows import RowError, Turn
from future_l1_verl.data.seeing import see

_PLACEHOLDER = re.compile(r"\{(question|future)\}")


@dataclass(frozen=True)
class Prompts:
    """A template per condition: ``base`` with ``{question}``, ``hint`` also with ``{future}`` for the future frames."""

    base: str
    hint: str
    system: str | None = None

    @classmethod
    def read(cls, base: Path | None = None, hint: Path | None = None, system: str | None = None) -> Prompts:
        """Reads two files, or ours. Raises ValueError naming a file with a missing or additional placeholder."""
        texts = []
        for condition, given, wanted in (("base", base, ["question"]), ("hint", hint, ["question", "future"])):
            file = given or Path(__file__).with_name("prompts") / f"{condition}.txt"
            text = file.read_text(encoding="utf-8").strip()
            names = " and ".join(f"{{{name}}}" for name in wanted)
            if _PLACEHOLDER.findall(text) != wanted:
                raise ValueError(f"{file}: {names} must stand in it, once and in this order")
            if "<image>" in text:
                raise ValueError(f"{file}: <image> must not stand in it; frames come with {names}")
            texts.append(text)
        return cls(*texts, system)

    def chat(self, condition: str, candidate: Candidate, shown: Shown) -> list[Message]:
        """Returns the messages of a ``condition``."""
        texts = {"question": candidate["question"], "future": "<image>" * len(shown.future)}
        text = _PLACEHOLDER.sub(lambda match: texts[match[1]], getattr(self, condition))
        frames = [Frame(_image(png), math.nan) for png in shown.observed + (shown.future if condition == "hint" else [])]
        return chat([Turn("user", text)], frames, self.system)


@dataclass(frozen=True)
class Shown:
    """The frames of a candidate as PNG files."""

    observed: list[bytes]
    future: list[bytes]


def decode(candidate: Candidate, videos: Path, max_pixels: int) -> Shown:
    """Returns the frames of a candidate, shrunk to at most ``max_pixels``. Raises RowError if its clip cannot be decoded, it
    names no future frames, or it breaks another rule of rows."""
    if not candidate["reasoning_image"]:
        raise RowError("reasoning_image: names no future frames, so there is nothing to gain")
    seen = see(as_row(candidate, videos), Clips())
    return Shown(*([_png(frame.image, max_pixels) for frame in frames] for frames in (seen.observed, seen.future)))


def _png(image: Image.Image, max_pixels: int) -> bytes:
    shrink = (max_pixels / (image.width * image.height)) ** 0.5
    if shrink < 1:
        size = max(1, int(image.width * shrink)), max(1, int(image.height * shrink))
        image = image.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def seeds(seed: int, candidate_id: str, condition: str, rollouts: int) -> list[int]:
    """Returns one seed per rollout; they are consecutive and depend only on the arguments."""
    if condition not in CONDITIONS:
        raise ValueError(f"a condition is one of {', '.join(CONDITIONS)}, not {condition!r}")
    digest = hashlib.sha256(f"{seed}\0{candidate_id}\0{condition}".encode()).digest()
    first = int.from_bytes(digest[:4], "big") // 2  # servers accept 32 bits, some only positive numbers
    return list(range(first, first + rollouts))
