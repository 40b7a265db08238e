"""The frames and pictures of a row, decoded."""

import math
from dataclasses import dataclass

from future_l1_verl.data.clips import Clips, Frame, even_numbers
from future_l1_verl.data.pictures import read_picture
from future_l1_verl.data.rows import Clip, Picture, Row, RowError, Shown
from future_l1_verl.data.twiff import frame_numbers

SPREAD = 16  # most frames of a clip that is shown as a whole


@dataclass(frozen=True)
class Seen:
    """The decoded frames of a row. ``observed`` has an entry for each place of the prompt: a frame, or the frames of a whole
    clip. ``numbers`` and ``future_numbers`` are the 0-based numbers of those that are frames of a clip."""

    observed: list[Frame | list[Frame]]
    future: list[Frame]
    numbers: list[int]
    future_numbers: list[int]


def see(row: Row, clips: Clips, spread: int = SPREAD) -> Seen:
    """Decodes the frames and pictures of a row; of a whole clip at most ``spread`` frames, evenly spaced. Raises RowError."""
    try:
        entries = [item for item in (*row.observed, *row.future) if isinstance(item, int)]
        numbers = frame_numbers(entries, clips.count(row.video)) if entries else []
        pool = dict(zip(entries, zip(numbers, clips.frames(row.video, numbers), strict=True), strict=True)) if entries else {}
        observed, future = ([_one(item, pool, clips, spread) for item in items] for items in (row.observed, row.future))
    except RowError:
        raise
    except ValueError as error:  # from a clip, a picture or TwiFF's pool
        raise RowError(f"video or image cannot be shown: {error}") from error
    return Seen(
        observed=[frames for _, frames in observed],
        future=[frame for _, frame in future if isinstance(frame, Frame)],
        numbers=[number for found, _ in observed for number in found],
        future_numbers=[number for found, _ in future for number in found],
    )


def _one(item: Shown, pool: dict[int, tuple[int, Frame]], clips: Clips, spread: int) -> tuple[list[int], Frame | list[Frame]]:
    match item:
        case Picture(content):
            return [], Frame(read_picture(content), math.nan)
        case Clip(path):
            numbers = even_numbers(clips.count(path), spread)
            if not numbers:
                raise RowError(f"video has no frame to show: {path}")
            return numbers, clips.frames(path, numbers)
        case entry:
            number, frame = pool[entry]
            return [number], frame
