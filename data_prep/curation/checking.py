"""Checks in parallel that clips exist and decode."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from future_l1_verl.data.twiff import frame_pool
from future_l1_verl.data.video import count_frames, read_frames
from future_l1_verl.progress import Progress

DECODE = ("none", "first", "all")
CLIPS_AT_ONCE = 4096  # waiting for a worker
CLIPS_PER_TASK = 16


@dataclass
class Checked:
    """``bad`` has the reasons by clip; ``frames`` the number of good clips by number of frames, if these were counted."""

    clips: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    frames: Counter[int] = field(default_factory=Counter)


def check(clips: Iterable[str], total: int, videos: Path, decode: str, workers: int, most_bad: int) -> Checked:
    """Checks each of ``total`` clips, paths relative to the folder ``videos``, until more than ``most_bad`` of them are bad.

    With ``decode`` none a clip is good if its file exists and is not empty; with first its first frame must decode as well;
    with all the whole clip must, with enough frames for TwiFF's pool. Raises ValueError for another ``decode``.
    """
    if decode not in DECODE:
        raise ValueError(f"decode is one of {', '.join(DECODE)}, not {decode!r}")
    checked, clips = Checked(), iter(clips)
    # Not forked, since this process has Arrow's threads.
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        Progress(total=total, desc="checking clips", unit="clip", leave=False) as bar,
    ):
        while len(checked.bad) <= most_bad and (block := list(islice(clips, CLIPS_AT_ONCE))):
            found = pool.map(partial(_look, videos, decode), block, chunksize=CLIPS_PER_TASK)
            for clip, (problem, frames) in zip(block, found, strict=True):
                checked.clips += 1
                if problem:
                    checked.bad[clip] = problem
                elif frames:
                    checked.frames[frames] += 1
                bar.update()
    return checked


def _look(videos: Path, decode: str, clip: str) -> tuple[str, int]:
    """Returns what is wrong with a clip, if anything, and the number of its frames if they were counted."""
    path, frames = videos / clip, 0
    if not os.path.isfile(path):
        return f"video is missing: {clip}", frames
    if path.stat().st_size == 0:
        return f"video is empty: {clip}", frames
    try:
        if decode == "first":
            read_frames(path, [0])
        elif decode == "all":
            frames = count_frames(path)
    except ValueError as error:  # VideoError, or texts in the file that are not UTF-8
        return f"video does not decode: {error}", frames
    try:
        if decode == "all":
            frame_pool(frames)
    except ValueError as error:
        return f"video is too short: {clip}: {error}", frames
    return "", frames
