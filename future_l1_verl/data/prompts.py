"""Turns rows into chat messages, and messages into a processor's inputs, in training, rollout and evaluation alike."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from future_l1_verl.data.clips import Frame
from future_l1_verl.data.rows import IMAGE, PLACEHOLDER, VIDEO, Row, RowError, Turn

if TYPE_CHECKING:
    from transformers import BatchFeature, ProcessorMixin

Message = dict[str, Any]


def messages(
    row: Row, observed: Sequence[Frame | list[Frame]], system_prompt: str | None, form: str = "frames"
) -> list[Message]:
    """Returns the prompt of a row; ``observed`` is from `see`. With ``frames`` each frame is a picture; with ``video`` all
    frames of a clip are one video with their times, in the place of the first. A row ``as_given`` shows its pictures as
    pictures and its clips as videos. Raises RowError if the frames of a video have no times.
    """
    turns, shown = list(row.turns), list(observed)
    frames = [frame for frame in shown if isinstance(frame, Frame)]  # all or none, unless the row is ``as_given``
    if form == "video" and not row.as_given and frames:
        turns, shown = _one_video(turns), [frames]
    return chat(turns, shown, system_prompt, as_video=row.as_given or form == "video")


def chat(
    turns: Sequence[Turn], shown: Sequence[Frame | list[Frame]], system_prompt: str | None, as_video: bool = False
) -> list[Message]:
    """Returns turns as messages, with ``shown`` in their places, in order; several frames ``as_video`` or as pictures. The
    system prompt comes first, unless the turns have one."""
    rest = iter(shown)

    def parts(piece: str) -> list[dict[str, Any]]:
        if not PLACEHOLDER.fullmatch(piece):
            return [{"type": "text", "text": piece}]
        found = next(rest)
        if isinstance(found, list) and as_video:
            return [video_part(found)]
        return [{"type": "image", "image": frame.image} for frame in (found if isinstance(found, list) else [found])]

    said = [
        {"role": role, "content": [part for piece in PLACEHOLDER.split(text) if piece for part in parts(piece)]}
        for role, text in turns
    ]
    return said if turns[0].role == "system" else [*system(system_prompt), *said]


def _one_video(turns: list[Turn]) -> list[Turn]:
    """Returns the turns with one place for a video in place of those of its frames."""
    first = next(index for index, turn in enumerate(turns) if IMAGE in turn.text)
    bare = [Turn(turn.role, turn.text.replace(IMAGE, "")) for turn in turns]
    before, _, after = turns[first].text.partition(IMAGE)
    bare[first] = Turn(turns[first].role, before + VIDEO + after.replace(IMAGE, ""))
    return bare


def system(prompt: str | None) -> list[Message]:
    """Returns the system message in a list; an empty list for None."""
    return [{"role": "system", "content": [{"type": "text", "text": prompt}]}] if prompt else []


def video_part(frames: Sequence[Frame]) -> dict[str, Any]:
    """Returns frames as one video of a chat message. Raises RowError if one has no time."""
    if any(math.isnan(frame.seconds) for frame in frames):
        raise RowError(f"a video needs frames with times: these are {[frame.seconds for frame in frames]}")
    return {"type": "video", "video": [frame.image for frame in frames], "seconds": [frame.seconds for frame in frames]}


def vision_inputs(chat: Sequence[Message], patch_size: int) -> tuple[list | None, list | None]:
    """Returns images, and videos as ``(frames, metadata)``, of a chat, sized for a processor with that ``patch_size``.

    qwen_vl_utils assumes that a list of frames is evenly spaced, two per second; the metadata here have the real times.
    """
    from qwen_vl_utils import process_vision_info  # imports torch, which commands that only read rows do not need

    images, videos = process_vision_info(list(chat), image_patch_size=patch_size, return_video_metadata=True)
    parts = [part for message in chat for part in message["content"] if isinstance(part, dict) and part["type"] == "video"]
    timed = []
    for (frames, metadata), part in zip(videos or [], parts, strict=True):
        seconds = part["seconds"] + part["seconds"][-1:] * (len(frames) - len(part["seconds"]))
        # At one frame per second an index equals a time.
        timed.append((frames, metadata | {"fps": 1.0, "frames_indices": seconds, "total_num_frames": len(frames)}))
    return images, timed or None


def engine_prompt(processor: ProcessorMixin, chat: Sequence[Message]) -> dict[str, Any]:
    """Returns a prompt in vLLM's form."""
    images, videos = vision_inputs(chat, processor.image_processor.patch_size)
    text = processor.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
    data = {"image": images, "video": videos}
    return {"prompt": text, "multi_modal_data": {kind: values for kind, values in data.items() if values}}


def as_sent(message: Message, sized: Callable[[Image.Image], Image.Image] = lambda image: image) -> Message:
    """Returns a message for an OpenAI chat API, with its images, after ``sized``, as PNG files in data URLs."""
    return message | {"content": [_sent_part(part, sized) for part in message["content"]]}


def _sent_part(part: dict[str, Any], sized: Callable[[Image.Image], Image.Image]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    return {"type": "image_url", "image_url": {"url": data_url(sized(part["image"]))}}


def data_url(image: Image.Image) -> str:
    """Returns a picture as a PNG file in a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def processor_inputs(processor: ProcessorMixin, chat: Sequence[Message]) -> BatchFeature:
    """Returns a processor's ``input_ids [1, P]`` and pixels of a prompt."""
    images, videos = vision_inputs(chat, processor.image_processor.patch_size)
    text = processor.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
    video: dict[str, Any] = {}
    if videos:
        frames, metadata = zip(*videos, strict=True)
        video = {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
    return processor(text=[text], images=images, **video, return_tensors="pt")


def prompt_length(processor: ProcessorMixin, chat: Sequence[Message]) -> int:
    """Returns the number of tokens of `processor_inputs`, without processing pictures of a size that was seen before."""
    kinds = [part for message in chat for part in message["content"] if part["type"] != "text"]
    if any(part["type"] == "video" for part in kinds):
        return processor_inputs(processor, chat)["input_ids"].shape[1]
    text = processor.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
    placeholders = len(processor.tokenizer(text)["input_ids"])
    return placeholders + sum(_image_tokens(processor, *part["image"].size) - 1 for part in kinds)


@lru_cache
def _image_tokens(processor: ProcessorMixin, width: int, height: int) -> int:
    picture = {"type": "image", "image": Image.new("RGB", (width, height))}
    ids = processor_inputs(processor, [{"role": "user", "content": [picture]}])["input_ids"]
    return int((ids == processor.image_token_id).sum())  # type: ignore[attr-defined]  # all with pictures have it
