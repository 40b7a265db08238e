"""Frames of clips with their times; with a cache directory each is decoded only once."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from future_l1_verl.data.video import VideoError, count_frames, read_timed_frames
from future_l1_verl.files import whole

READING = "turned by the display matrix"  # the way frames are decoded; a cache made in another way is not used


class Frame(NamedTuple):
    """An RGB image and its presentation time in seconds from the start of the clip."""

    image: Image.Image
    seconds: float


class Clips:
    """Reads the number of frames (``count``) and the ``frames`` of video files, with or without a cache.

    The cache has a folder per clip (its name depends on path, size, modification time and `READING`) with the number of its
    frames and, for each frame read so far, a lossless PNG and its time. Processes may share it: files are written atomically.
    """

    def __init__(self, cache: str | Path | None = None) -> None:
        self.cache = None if cache is None else Path(cache)

    def count(self, path: str) -> int:
        """Returns the number of frames that decode. Raises VideoError."""
        if self.cache is None:
            return _count(path)
        entry = _entry(self.cache, path) / "count.json"
        if not entry.exists():
            _write(entry, _count(path))
        return json.loads(entry.read_text())

    def frames(self, path: str, numbers: Sequence[int]) -> list[Frame]:
        """Returns the frames with 0-based ``numbers``, in the order given, repeats included. Raises VideoError."""
        if self.cache is None:
            return [Frame(*frame) for frame in read_timed_frames(path, numbers)]
        folder = _entry(self.cache, path)
        missing = [number for number in dict.fromkeys(numbers) if not (folder / f"{number}.json").exists()]
        for number, (image, seconds) in zip(missing, read_timed_frames(path, missing), strict=True):
            with whole(folder / f"{number}.png") as file:
                image.save(file)
            _write(folder / f"{number}.json", seconds)
        return [self._read(folder, number) for number in numbers]

    def _read(self, folder: Path, number: int) -> Frame:
        with Image.open(folder / f"{number}.png") as image:
            return Frame(image.convert("RGB"), json.loads((folder / f"{number}.json").read_text()))


def _entry(cache: Path, path: str) -> Path:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: no such file") from error
    identity = f"{READING}\0{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@lru_cache(maxsize=100_000)
def _count(path: str) -> int:
    """Returns the number of frames, cached: counting decodes the whole clip, and every epoch needs it again."""
    return count_frames(path)


def _write(path: Path, value: float) -> None:
    with whole(path) as file:
        file.write_text(json.dumps(value))


def even_numbers(count: int, wanted: int) -> list[int]:
    """Returns at most ``wanted`` of ``count`` frame numbers, evenly spaced (the middles of equal parts), or all if few."""
    if count <= wanted:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
