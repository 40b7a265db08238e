"""Rows of stage 1, of either form, as a prompt and what is to be said after it.

TwiFF rows (``conversations``, ``video``, ``image``, ``reasoning_image``, ``answer``): each ``<image>`` of the human turn is an
observed frame, each of the gpt turn a future one, imagined there. Chat rows (``messages``, and ``videos`` or ``images`` for the
placeholders in them) have no latents; the last message is what is to be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from future_l1_verl.data.clips import Clips, even_numbers
from future_l1_verl.data.prompts import Message, messages, system, video_part
from future_l1_verl.data.rows import Row, RowError, frames, turn, without_markers
from future_l1_verl.data.skipped import Skipped
from future_l1_verl.data.twiff import POOL

_PLACEHOLDER = re.compile("(<image>|<video>)")


@dataclass(frozen=True)
class Conversation:
    """``said`` are the texts of the answer, between which the ``future`` frames are imagined: one more than frames."""

    prompt: list[Message]
    said: list[str]
    future: list[Image.Image]


def conversation(
    row: Row, system_prompt: str | None, form: str, video_frames: int, clips: Clips, text_only: bool
) -> Conversation:
    """``form`` and ``video_frames`` say how clips are shown (see config/sft/main.yaml); with ``text_only`` nothing is imagined.

    Raises RowError if a clip cannot be decoded, or placeholders and frames do not fit.
    """
    if "messages" in row and row["messages"] is not None:
        return _chat(row, system_prompt, video_frames, clips)
    observed, future = frames(row, "image", "reasoning_image", clips=clips)
    prompt = messages(row, turn(row, "human"), observed, system_prompt, form)
    said = without_markers(turn(row, "gpt")).split("<image>")
    if len(said) != len(future) + 1:
        raise RowError(f"{row['source']}: {len(said) - 1} <image> in the answer but {len(future)} in reasoning_image")
    if text_only:
        return Conversation(prompt, ["".join(said)], [])
    return Conversation(prompt, said, [frame.image for frame in future])


def _chat(row: Row, system_prompt: str | None, video_frames: int, clips: Clips) -> Conversation:
    videos, images = iter(row.get("videos") or []), iter(row.get("images") or [])

    def part(text: str) -> dict[str, Any]:
        match text:
            case "<video>":
                path = next(videos)
                return video_part(row, clips.frames(path, even_numbers(clips.count(path), video_frames)))
            case "<image>":
                return {"type": "image", "image": Image.open(next(images)).convert("RGB")}
            case _:
                return {"type": "text", "text": text}

    *before, last = row["messages"]
    try:
        prompt = [
            {"role": message["role"], "content": [part(text) for text in _PLACEHOLDER.split(message["content"]) if text]}
            for message in before
        ]
    except (OSError, ValueError) as error:
        raise RowError(f"{row['source']}: {error}") from error
    leading = system(system_prompt) if before[0]["role"] != "system" else []
    return Conversation([*leading, *prompt], [last["content"]], [])


def problems(row: Row) -> Iterator[str]:
    """What is wrong with a row as far as its clips need not be decoded to see it; each names the field."""
    if row.get("messages") is not None:
        yield from _chat_problems(row)
    elif row.get("conversations") is not None:
        yield from _twiff_problems(row)
    else:
        yield "neither conversations (TwiFF) nor messages (chat)"


def usable(rows: list[Row], skipped: Skipped) -> list[Row]:
    """The rows with which nothing is wrong that can be seen without decoding; the others go to the manifest.

    Raises RowError if those are too many.
    """
    found = []
    for row in tqdm(rows, desc="checking rows", unit="row", leave=False):
        problem = next(problems(row), None)
        if problem is None:
            found.append(row)
        else:
            skipped.add(row["source"], problem)
    skipped.check(len(rows))
    return found


def _twiff_problems(row: Row) -> Iterator[str]:
    for field in ("image", "reasoning_image"):
        indices = row.get(field)
        if not isinstance(indices, list) or not all(isinstance(index, int) for index in indices):
            yield f"{field}: a list of frame numbers is needed, not {indices!r}"
            return
        outside = [index for index in indices if not 1 <= index <= POOL]
        if outside or not indices:
            yield f"{field}: frame numbers lie in 1..{POOL}, at least one; not {indices}"
    if not isinstance(row.get("answer"), str) or not row["answer"].strip():
        yield f"answer: a text is needed, not {row.get('answer')!r}"
    try:
        human, gpt = turn(row, "human"), turn(row, "gpt")
    except RowError as error:
        yield str(error).removeprefix(f"{row['source']}: ")
        return
    except (KeyError, TypeError, ValueError) as error:
        yield f"conversations: not a list of {{from, value}} ({error!r})"
        return
    for field, text in (("image", human), ("reasoning_image", gpt)):
        if text.count("<image>") != len(row[field]):
            yield f"{field}: names {len(row[field])} frames but {text.count('<image>')} <image> stand in the text"
    yield from _missing("video", [row.get("video")])


def _chat_problems(row: Row) -> Iterator[str]:
    chat = row["messages"]
    if not isinstance(chat, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in chat
    ):
        yield "messages: not a list of {role, content}"
        return
    if len(chat) < 2 or chat[-1]["role"] != "assistant" or not chat[-1]["content"].strip():
        yield "messages: the last of at least two has to be an assistant's, and not empty"
        return
    for field, placeholder in (("videos", "<video>"), ("images", "<image>")):
        paths, count = row.get(field) or [], sum(message["content"].count(placeholder) for message in chat[:-1])
        if len(paths) != count:
            yield f"{field}: names {len(paths)} files but {count} {placeholder} stand in the messages"
        yield from _missing(field, paths)


def _missing(field: str, paths: list[Any]) -> Iterator[str]:
    for path in paths:
        if not isinstance(path, str):
            yield f"{field}: a path is needed, not {path!r}"
        elif not Path(path).is_file():
            yield f"{field}: {path} is missing"
        elif Path(path).stat().st_size == 0:
            yield f"{field}: {path} is empty"
