"""Reading single frames out of video files, and writing short clips."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


class VideoError(ValueError):
    """A video file cannot give the frames asked of it; the message names the file and the reason."""


def _decode(path: str | Path) -> Iterator[av.VideoFrame]:
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream")
            yield from container.decode(video=0)
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded ({error})") from error


def count_frames(path: str | Path) -> int:
    """Number of frames that decode, by decoding them all: containers often declare a wrong number. Raises VideoError."""
    return sum(1 for _ in _decode(path))


def read_frames(path: str | Path, numbers: Sequence[int]) -> list[Image.Image]:
    """RGB images of the 0-based frame ``numbers``: see `read_timed_frames`."""
    return [image for image, _ in read_timed_frames(path, numbers)]


def read_timed_frames(path: str | Path, numbers: Sequence[int]) -> list[tuple[Image.Image, float]]:
    """RGB images of the 0-based frame ``numbers`` and their times in seconds, in the order given, repeats included.

    Frames are counted while decoding from the start, so the numbers are exact whatever the container's timestamps say.
    Times are presentation times from that of the first frame, NaN for frames without one.
    Raises VideoError if the file is missing, does not decode or has too few frames; ValueError on a negative number.
    """
    wanted = set(numbers)
    if not wanted:
        return []
    if min(wanted) < 0:
        raise ValueError(f"frame numbers start at 0, not {min(wanted)}")
    frames: dict[int, tuple[Image.Image, float]] = {}
    count, start = 0, math.nan
    for number, frame in enumerate(_decode(path)):
        time = math.nan if frame.time is None else frame.time
        count, start = count + 1, time if number == 0 else start
        if number in wanted:
            frames[number] = frame.to_image(), time - start
            if len(frames) == len(wanted):
                return [frames[n] for n in numbers]
    raise VideoError(f"{path}: has {count} frames, frame number {max(wanted)} was asked for")


def write_video(path: str | Path, frames: np.ndarray, fps: Fraction | int) -> None:
    """Writes uint8 RGB ``[n, height, width, 3]`` as H.264 in ``yuv420p``.

    Equal frames give equal bytes: settings are fixed and one thread encodes. Raises ValueError on odd sizes, which
    ``yuv420p`` cannot hold.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: frames of {width}x{height} cannot be written; both sides must be even")
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "16"})
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
