"""Turns a question into a chat, the same for every engine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import Message, messages
from future_l1_verl.data.rows import Clip, Row
from future_l1_verl.data.seeing import see
from future_l1_verl.modeling.trained_as import TrainedAs


@dataclass(frozen=True)
class Style:
    """The style of a question: ``system`` is the text before it and ``after`` the text after it, ``observed`` the form of its
    frames (frames or video), ``spans`` whether the reply may have spans."""

    name: str
    system: str | None
    observed: str
    spans: bool
    after: str = ""

    @classmethod
    def for_checkpoint(cls, name: str | None, trained: TrainedAs, has_latents: bool) -> Style:
        """Returns a style by name, by default that of the checkpoint's training. ``latent`` and ``text_only`` follow the
        training, and so does ``letter``, the public evaluation's style, which asks only for the letter of an option."""
        name = name or ("text_only" if trained.text_only or not has_latents else "latent")
        if name in ("reasoning", "direct"):
            return cls(name, _text(name), trained.observed, False)
        spans = name == "latent" or (name == "letter" and has_latents and not trained.text_only)
        return cls(name, trained.system_prompt, trained.observed, spans, _text("letter") if name == "letter" else "")


def _text(name: str) -> str:
    return (resources.files("future_l1_verl.evaluation") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Prompt:
    """``sha256`` covers everything shown, pixels included; ``frames`` and ``future`` are 0-based frame numbers of the clip."""

    chat: list[Message]
    sha256: str
    frames: list[int]
    future: list[int]


def prompt(row: Row, style: Style, max_frames: int) -> Prompt:
    """Builds the prompt of a question, with at most ``max_frames`` of a clip that is shown whole. Raises RowError."""
    seen = see(row, Clips(), max_frames)
    *before, last = row.turns
    asked = last._replace(text=f"{last.text}\n{style.after}") if style.after else last
    chat = messages(replace(row, turns=(*before, asked)), seen.observed, style.system, style.observed)
    return Prompt(chat, _digest(chat), seen.numbers, seen.future_numbers)


def most_frames(rows: list[Row], max_frames: int) -> int:
    """Returns the most frames that a question may show."""
    return max(sum(max_frames if isinstance(item, Clip) else 1 for item in row.observed) for row in rows)


def _digest(chat: list[Message]) -> str:
    shown: list[Any] = []
    for message in chat:
        for part in message["content"]:
            frames = [part["image"]] if part["type"] == "image" else part.get("video", [])
            pixels = [[*image.size, hashlib.sha256(image.tobytes()).hexdigest()] for image in frames]
            shown.append([message["role"], part["type"], part.get("text"), part.get("seconds"), pixels])
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()
