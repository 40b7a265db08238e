"""Rows as chat messages, and messages as a processor's inputs: the one way a clip is shown in training, rollout, evaluation."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import BatchFeature, ProcessorMixin

from future_l1_verl.data.clips import Frame
from future_l1_verl.data.rows import Row, RowError

FORMS = ("frames", "video")
Message = dict[str, Any]


def messages(row: Row, text: str, observed: Sequence[Frame], system_prompt: str | None, form: str = "frames") -> list[Message]:
    """The prompt of a row. As ``frames`` each ``<image>`` of ``text`` is an observed frame; as ``video`` all of them together
    are one video, with the times of its frames, in the place of the first.

    Raises RowError if placeholders and observed frames differ in number, or if a video's frames have no times.
    """
    if text.count("<image>") != len(observed):
        raise RowError(f"{row['source']}: {text.count('<image>')} <image> in the question but {len(observed)} in image")
    if form == "video":
        before, *rest = text.split("<image>")
        content = [{"type": "text", "text": before}, video_part(row, observed), {"type": "text", "text": "".join(rest)}]
    else:
        shown = iter(observed)
        content = [
            {"type": "image", "image": next(shown).image} if part == "<image>" else {"type": "text", "text": part}
            for part in re.split("(<image>)", text)
        ]
    content = [part for part in content if part.get("text") != ""]
    return [*system(system_prompt), {"role": "user", "content": content}]


def system(prompt: str | None) -> list[Message]:
    """The message before all others; none for None."""
    return [{"role": "system", "content": [{"type": "text", "text": prompt}]}] if prompt else []


def video_part(row: Row, frames: Sequence[Frame]) -> dict[str, Any]:
    """Frames as one video of a chat message. Raises RowError if there are none or one has no time."""
    if not frames or any(math.isnan(frame.seconds) for frame in frames):
        raise RowError(f"{row['source']}: a video needs frames with times, these are {[frame.seconds for frame in frames]}")
    return {"type": "video", "video": [frame.image for frame in frames], "seconds": [frame.seconds for frame in frames]}


def vision_inputs(chat: Sequence[Message], patch_size: int) -> tuple[list | None, list | None]:
    """Images, and videos as ``(frames, metadata)``, of a chat, sized for a processor with that ``patch_size``.

    qwen_vl_utils takes frames of a list for evenly spaced, two a second; the metadata here carry their own times.
    """
    images, videos = process_vision_info(list(chat), image_patch_size=patch_size, return_video_metadata=True)
    parts = [part for message in chat for part in message["content"] if isinstance(part, dict) and part["type"] == "video"]
    timed = []
    for (frames, metadata), part in zip(videos or [], parts, strict=True):
        seconds = part["seconds"] + part["seconds"][-1:] * (len(frames) - len(part["seconds"]))
        # At one frame a second an index is a time.
        timed.append((frames, metadata | {"fps": 1.0, "frames_indices": seconds, "total_num_frames": len(frames)}))
    return images, timed or None


def engine_prompt(processor: ProcessorMixin, chat: Sequence[Message]) -> dict[str, Any]:
    """A prompt as vLLM takes it."""
    images, videos = vision_inputs(chat, processor.image_processor.patch_size)
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    data = {"image": images, "video": videos}
    return {"prompt": text, "multi_modal_data": {kind: values for kind, values in data.items() if values}}


def as_sent(message: Message, sized: Callable[[Image.Image], Image.Image] = lambda image: image) -> Message:
    """A message for an OpenAI chat API, its images as PNG files in data URLs, after ``sized``."""
    return message | {"content": [_sent_part(part, sized) for part in message["content"]]}


def _sent_part(part: dict[str, Any], sized: Callable[[Image.Image], Image.Image]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    file = io.BytesIO()
    sized(part["image"]).save(file, "PNG", compress_level=1)
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def processor_inputs(processor: ProcessorMixin, chat: Sequence[Message]) -> BatchFeature:
    """``input_ids [1, P]`` and pixels of a prompt, as a processor makes them."""
    images, videos = vision_inputs(chat, processor.image_processor.patch_size)
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    video = {}
    if videos:
        frames, metadata = zip(*videos, strict=True)
        video = {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
    return processor(text=[text], images=images, **video, return_tensors="pt")
