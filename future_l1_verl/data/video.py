"""Reads single frames of video files, and writes short clips."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image


class VideoError(ValueError):
    """A video file cannot give the requested frames; the message has the file and the reason."""


class Probe(NamedTuple):
    """The properties of a video file: its number of ``frames`` by the container's packets, ``width`` and ``height`` of the
    frames as they are read, and whether they are ``timed``, that is, have timestamps.
    """

    frames: int
    width: int
    height: int
    timed: bool


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file")
    try:
        # Absolute, because FFmpeg reads the part before a colon in a relative name as a protocol. Metadata such as titles are
        # not used here, so they need not be valid UTF-8.
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream")
            yield container
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded ({error})") from error


def _decode(path: str | Path) -> Iterator[av.VideoFrame]:
    with _opened(path) as container:
        yield from container.decode(video=0)


def probe(path: str | Path) -> Probe:
    """Returns the properties of a file, of which only the first frame is decoded. The number of frames is that of packets with
    a frame to show: if the file is damaged in the middle, fewer may decode. Raises VideoError.
    """
    count, first = 0, None
    with _opened(path) as container:
        for packet in container.demux(video=0):
            count += packet.size > 0 and not packet.is_discard
            if first is None:
                first = next(iter(packet.decode()), None)
    if first is None:
        raise VideoError(f"{path}: no frame decodes")
    width, height = (first.height, first.width) if first.rotation in (90, -90) else (first.width, first.height)
    return Probe(count, width, height, first.time is not None)


# Degrees of a display matrix, counter-clockwise; OpenCV, the served engine's reader, does not turn other angles either.
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


def _turned(frame: av.VideoFrame, converter: VideoReformatter) -> Image.Image:
    """Returns the RGB image of a frame, turned for display: cameras held upright record sideways, with a rotation.

    ``frame.to_image()`` alone sets up a converter for each frame, which takes longer than a small frame itself.
    """
    image = converter.reformat(frame, format="rgb24").to_image()
    return image.transpose(_TURNS[frame.rotation]) if frame.rotation in _TURNS else image


def count_frames(path: str | Path) -> int:
    """Decodes all frames and returns their number, which containers often declare wrongly. Raises VideoError."""
    return sum(1 for _ in _decode(path))


def read_frames(path: str | Path, numbers: Sequence[int]) -> list[Image.Image]:
    """Returns the RGB images of the 0-based frame ``numbers``; see `read_timed_frames`."""
    return [image for image, _ in read_timed_frames(path, numbers)]


def read_timed_frames(path: str | Path, numbers: Sequence[int]) -> list[tuple[Image.Image, float]]:
    """Returns the RGB images of the 0-based frame ``numbers`` and their times in seconds, in the order given, repeats included.
    Images are turned by the display matrix, as in the served engine.

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
    count, start, converter = 0, math.nan, VideoReformatter()
    for number, frame in enumerate(_decode(path)):
        time = math.nan if frame.time is None else frame.time
        count, start = count + 1, time if number == 0 else start
        if number in wanted:
            frames[number] = _turned(frame, converter), time - start
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
