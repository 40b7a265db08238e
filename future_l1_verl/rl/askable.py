"""Finds the rows that stage 2 can ask, before anything is started and without decoding whole clips."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image
from transformers import ProcessorMixin

from future_l1_verl.data.clips import Frame, even_numbers
from future_l1_verl.data.pictures import read_picture
from future_l1_verl.data.prompts import Message, messages, prompt_length
from future_l1_verl.data.reader import read, total
from future_l1_verl.data.rows import Clip, Picture, Row, RowError, Shown
from future_l1_verl.data.skipped import Skipped, reason
from future_l1_verl.data.twiff import frame_pool
from future_l1_verl.data.video import Probe, probe
from future_l1_verl.files import whole
from future_l1_verl.progress import Progress

CACHE = "askable.json"


def askable(
    paths: Sequence[str], config: DictConfig, processor: ProcessorMixin, skipped: Skipped, limit: int | None = None
) -> list[Row]:
    """Returns the rows of files that stage 2 can ask with the settings ``config`` (the section ``data``); lists the others.

    To find its length, the prompt of each row is built with blank frames of the clip's size. The results are kept beside the
    manifest, for the next start. Raises RowError, naming all rows, if too many cannot be read or asked.
    """
    rows = skipped.readable(read(paths, config.videos, limit, require=Row.require_answer), total(paths, limit))
    number = len(rows) + len(skipped.listed)
    cache = Path(config.manifest).with_name(CACHE)
    known: dict[str, str] = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
    asking = [config[name] for name in ("system_prompt", "observed", "video_frames", "max_prompt_length")]
    settings = repr([*asking, processor, processor.chat_template])
    keys = [_key(row, settings) for row in rows]
    new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        look = partial(_problem, config=config, processor=processor, look=lru_cache(maxsize=1024)(probe))
        found = pool.map(look, new.values())
        known |= zip(new, Progress(found, total=len(new), desc="checking prompts", unit="row", leave=False), strict=True)
    if new:
        with whole(cache) as file:
            file.write_text(json.dumps(known), encoding="utf-8")
    for row, key in zip(rows, keys, strict=True):
        if known[key]:
            skipped.add(row.source, known[key])
    skipped.check(number)
    return [row for row, key in zip(rows, keys, strict=True) if not known[key]]


def _key(row: Row, settings: str) -> str:
    """Returns a digest of all that the result depends on: the row, the files that it shows, and the form of the prompt."""
    files = [(path, (status := os.stat(path)).st_size, status.st_mtime_ns) for path in row.files]
    return hashlib.sha256(f"{row}\0{files}\0{settings}".encode()).hexdigest()


def prompt(row: Row, observed: Sequence[Frame | list[Frame]], config: DictConfig, processor: ProcessorMixin) -> list[Message]:
    """Returns the chat of a row, ``observed`` its decoded frames. Raises RowError if it is longer than a prompt may be."""
    chat = messages(row, observed, config.system_prompt, config.observed)
    if (length := prompt_length(processor, chat)) > config.max_prompt_length:
        raise RowError(f"prompt is too long: {length} tokens, data.max_prompt_length is {config.max_prompt_length}")
    return chat


def _problem(row: Row, config: DictConfig, processor: ProcessorMixin, look: Callable[[str], Probe]) -> str:
    """Returns why a row cannot be asked; empty if it can."""
    try:
        prompt(row, [_blank(row, item, config.video_frames, look) for item in row.observed], config, processor)
    except Exception as error:  # processors raise many kinds of errors for sizes they do not accept
        return reason(error)
    return ""


def _blank(row: Row, item: Shown, spread: int, look: Callable[[str], Probe]) -> Frame | list[Frame]:
    """Returns blank frames in place of those of `see`, without decoding a clip: the times of a video's frames are guessed."""
    if isinstance(item, Picture):
        return Frame(read_picture(item.content), math.nan)
    clip = look(item.path if isinstance(item, Clip) else row.video)
    image = Image.new("RGB", (clip.width, clip.height))
    numbers = even_numbers(clip.frames, spread) if isinstance(item, Clip) else [frame_pool(clip.frames)[item - 1]]
    frames = [Frame(image, float(number) if clip.timed else math.nan) for number in numbers]
    return frames if isinstance(item, Clip) else frames[0]
