"""A question as the chat that is put to a model, the same whichever engine answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from future_l1_verl.data.clips import Clips, Frame, even_numbers
from future_l1_verl.data.prompts import Message, messages
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.evaluation.tasks import Question

STYLES = ("latent", "reasoning", "direct")


@dataclass(frozen=True)
class Prompt:
    """``sha256`` is that of everything shown, pixels included; ``frames`` and ``future`` are 0-based numbers of the clip's."""

    chat: list[Message]
    sha256: str
    frames: list[int]
    future: list[int]


def system_prompt(style: str) -> str:
    """What is said before a question: with ``latent`` what stage 2 trains with, with the others what asks for the same tags."""
    if style == "latent":
        return OmegaConf.load(resources.files("future_l1_verl.config.rl") / "main.yaml").data.system_prompt
    return (resources.files("future_l1_verl.evaluation") / "prompts" / f"{style}.txt").read_text(encoding="utf-8").strip()


def prompt(question: Question, system: str | None, max_frames: int) -> Prompt:
    """Decodes the frames of a question, at most ``max_frames`` where it names none. Raises RowError naming its row."""
    clips = Clips()
    try:
        count = clips.count(question.video)
        named = question.image is not None
        numbers = frame_numbers(question.image, count) if named else even_numbers(count, max_frames)
        future = frame_numbers(question.future, count) if question.future else []
        observed = clips.frames(question.video, numbers)
    except ValueError as error:
        raise RowError(f"{question.source}: video: {error}") from error
    if not numbers and not named:
        raise RowError(f"{question.source}: video: {question.video}: no frame to show; it has {count}")
    text = question.text if named else "<image>" * len(numbers) + question.text
    chat = messages({"source": question.source}, text, observed, system)
    return Prompt(chat, _digest(text, system, observed), numbers, future)


def _digest(text: str, system: str | None, observed: list[Frame]) -> str:
    seen: list[Any] = [system, text]
    for image, _ in observed:
        seen.append([*image.size, hashlib.sha256(image.tobytes()).hexdigest()])
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()
