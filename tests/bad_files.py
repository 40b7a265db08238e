"""Clips and pictures that cannot be used, each in its own way, beside good ones; and reasons as tests write them."""

from __future__ import annotations

import io
import re
import struct
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from future_l1_verl.data.video import write_video

FRAMES = 12


def write(folder: Path) -> Path:
    """``clip.mp4`` and ``picture.png`` are good; ``slow.mp4`` has the same frames, 1,000 seconds apart."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", noise[:FRAMES], 4)
    write_video(folder / "slow.mp4", noise[:FRAMES], Fraction(1, 1000))
    write_video(folder / "short.mp4", noise[:2], 4)
    write_video(folder / "broken.mp4", noise, 4)
    break_in_the_middle(folder / "broken.mp4")
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").touch()
    (folder / "untimed.h264").write_bytes(_untimed(noise[:FRAMES]))
    with wave.open(str(folder / "sound.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    Image.fromarray(noise[0]).save(folder / "picture.png")
    png, jpeg = (folder / "picture.png").read_bytes(), io.BytesIO()
    Image.fromarray(noise[0]).save(jpeg, "JPEG")
    (folder / "cut.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (folder / "chunk.png").write_bytes(png.replace(b"IDAT", b"ID\xffT"))
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "bomb.png").write_bytes(_png(20_000, 20_000))
    Image.new("RGB", (10, 2400)).save(folder / "tall.png")
    Image.new("RGB", (201, 1)).save(folder / "flat.png")
    return folder


def break_in_the_middle(clip: Path) -> None:
    """Overwrites a tenth of a clip's frames: it opens, its first frames decode, and then no more."""
    content = bytearray(clip.read_bytes())
    half, damaged = len(content) // 2, len(content) // 10
    content[half : half + damaged] = b"\xff" * damaged
    clip.write_bytes(content)


def _untimed(frames: np.ndarray) -> bytes:
    """H.264 without a container, which has no times."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG file that says it has so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def pattern(reason: str) -> str:
    """A reason as a regular expression, in which only ``.*`` is special."""
    return ".*".join(map(re.escape, reason.split(".*")))
