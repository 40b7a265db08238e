"""Turns rows of stage 1 into a prompt and the answer to learn."""

from dataclasses import dataclass

from PIL import Image

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import Message, messages
from future_l1_verl.data.rows import IMAGE, Row
from future_l1_verl.data.seeing import see


@dataclass(frozen=True)
class Conversation:
    """``said`` are the texts of the answer before, between and after the ``future`` frames: one more than frames."""

    prompt: list[Message]
    said: list[str]
    future: list[Image.Image]


def conversation(
    row: Row, system_prompt: str | None, form: str, video_frames: int, clips: Clips, text_only: bool
) -> Conversation:
    """Reads a row; ``form`` and ``video_frames`` are in config/sft/main.yaml; with ``text_only`` there are no future frames.

    Raises RowError if a clip or picture cannot be decoded, or the response does not have the paper's shape.
    """
    seen = see(row, clips, video_frames)
    prompt, said = messages(row, seen.observed, system_prompt, form), row.said.split(IMAGE)
    if text_only:
        return Conversation(prompt, ["".join(said)], [])
    return Conversation(prompt, said, [frame.image for frame in seen.future])
