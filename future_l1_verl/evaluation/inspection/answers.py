"""Puts answers beside the frames of their clips."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from future_l1_verl.data.clips import Clips
from future_l1_verl.evaluation.inspection.nearest import Tower, nearest, unseen
from future_l1_verl.evaluation.runs import Record
from future_l1_verl.progress import Progress

FRAMES = "frames"
LARGEST = 256  # pixels of a thumbnail's longer side


@dataclass(frozen=True)
class Thumbnail:
    """``file`` is relative to the page; ``number`` is that of the frame in its clip, from 0."""

    file: str
    number: int
    width: int
    height: int


@dataclass(frozen=True)
class Answer:
    """``nearest`` has for each latent the nearest future frame and their cosine; empty if latents were not kept or there are
    no future frames."""

    record: Record
    shown: list[Thumbnail]
    future: list[Thumbnail]
    nearest: list[tuple[Thumbnail, float]]


def illustrate(records: Sequence[Record], kept: Mapping[int, list[Tensor]], tower: Tower | None, out: Path) -> list[Answer]:
    """Returns the answers of ``records`` in order, and writes JPEGs to ``out/frames``. ``kept`` has by row the latents
    ``[T, H]`` of each span; ``tower``, needed if there are any, embeds frames. Raises VideoError if a frame cannot be read."""
    (out / FRAMES).mkdir(parents=True, exist_ok=True)
    by_clip = defaultdict(list)
    for record in records:
        by_clip[record.video].append(record)
    answers = {}
    for video, group in Progress(by_clip.items(), desc="frames beside answers", unit="clip", leave=False):
        answers |= {answer.record.row: answer for answer in _of_clip(video, group, kept, tower, out)}
    return [answers[record.row] for record in records]


def _of_clip(
    video: str, records: Sequence[Record], kept: Mapping[int, list[Tensor]], tower: Tower | None, out: Path
) -> list[Answer]:
    if not video:  # pictures embedded in the data are not kept
        return [Answer(record, [], [], []) for record in records]
    clips = Clips()
    future = {record.row: record.future or unseen(record.frames, clips.count(video)) for record in records}
    numbers = sorted({number for record in records for number in [*record.frames, *future[record.row]]})
    images = {number: frame.image for number, frame in zip(numbers, clips.frames(video, numbers), strict=True)}
    thumbnails = {number: _thumbnail(video, number, image, out) for number, image in images.items()}
    compared = [record.row for record in records if record.row in kept and future[record.row]]
    places = {number: place for place, number in enumerate(sorted({n for row in compared for n in future[row]}))}
    embeddings = tower.embed([images[number] for number in places]) if places else None
    near = {}
    for row in compared:
        candidates = embeddings[[places[number] for number in future[row]]]
        found = [pair for span in kept[row] for pair in nearest(span, candidates)]
        near[row] = [(thumbnails[future[row][frame]], cosine) for frame, cosine in found]
    return [
        Answer(
            record,
            shown=[thumbnails[number] for number in record.frames],
            future=[thumbnails[number] for number in future[record.row]],
            nearest=near.get(record.row, []),
        )
        for record in records
    ]


def _thumbnail(video: str, number: int, image: Image.Image, out: Path) -> Thumbnail:
    """Writes a thumbnail once, since questions about one clip share its frames."""
    file = f"{FRAMES}/{hashlib.sha256(video.encode()).hexdigest()[:16]}-{number}.jpg"
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    small.save(out / file, quality=88)
    return Thumbnail(file, number, *small.size)
