"""Writes the set: clips, TwiFF JSON, parquet tables and a manifest."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.toy.examples import ANSWERS, LETTERS, Example, Row, write_table
from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.captions import future_caption, observed_caption
from data_prep.toy.synthetic.headroom import headroom
from data_prep.toy.synthetic.rendering import FPS, render
from data_prep.toy.synthetic.scenes import FUTURE, OBSERVED, NoQuestionError, Question, Scene, pose, sample_scene
from future_l1_verl.data.video import write_video
from future_l1_verl.files import require_new, write_json

Progress = Callable[[Iterable[Any], str], Iterable[Any]]

# Each part of the set has its own random streams, independent of the sizes of the others.
STREAMS = {"train": 0, "test": 1, "val": 2}
DATA_SOURCE = "future_l1_synthetic"
AT_ONCE = 16  # clips of a split that are drawn before its questions are counted again


@dataclass(frozen=True)
class Settings:
    """``train_questions``, ``val_questions`` and ``test_questions`` are questions of each split, ``pairs`` is the share
    of clips with two balls, ``mistaken`` that of questions about a later hit for which the teacher of stage 1 gives the first.
    """

    train_questions: int = 1000
    val_questions: int = 64
    test_questions: int = 400
    seed: int = 0
    pairs: float = 0.1
    mistaken: float = 0.6
    answers: str = "text"

    def __post_init__(self) -> None:
        for name in ("train_questions", "val_questions", "test_questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("pairs", "mistaken"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {getattr(self, name)}")
        if self.answers not in ANSWERS:
            raise ValueError(f"answers must be one of {', '.join(ANSWERS)}, not {self.answers!r}")


@dataclass(frozen=True)
class _Asked:
    """A question about a clip."""

    clip: str
    scene: Scene
    question: Question


def write_set(out: Path, settings: Settings, progress: Progress) -> None:
    """Writes the whole set to the new or empty directory ``out``; the same settings give the same bytes.

    ``progress(iterable, label)`` returns the iterable and may show its progress. Raises FileExistsError if ``out`` is not
    empty.
    """
    out = Path(out)
    require_new(out)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    manifest: Row = {"settings": asdict(settings), "questions": {}, "letters": {}, "headroom": {}, "taught": {}, "dropped": {}}
    seen: dict[str, str] = {}
    for part in STREAMS:
        asked, captions, dropped = _write_clips(out, part, settings, seen, progress)
        examples = _examples(asked, part, settings.seed)
        write_table(out, part, examples, settings.answers)
        if part == "train":
            pd.DataFrame(captions).to_parquet(out / "captions_train.parquet", index=False)
            mistaken = np.random.default_rng([settings.seed, STREAMS[part], 0, 3]).random(len(asked)) < settings.mistaken
            taught = [
                _taught(example, item.question.hits, wrong)
                for example, item, wrong in zip(examples, asked, mistaken, strict=True)
            ]
            write_table(out, "sft_train", taught, settings.answers)
            right = [told.right == example.right for told, example in zip(taught, examples, strict=True)]
            manifest["taught"] = pd.Series(right).groupby([example.split for example in examples]).mean().to_dict()
            write_json(out / "twiff.json", [example.row(settings.answers) for example in examples])
        manifest["questions"][part] = _counts(example.split for example in examples)
        manifest["letters"][part] = _counts(f"{example.split} {example.letter}" for example in examples)
        manifest["headroom"][part] = headroom([(item.scene, item.question) for item in asked], examples)
        manifest["dropped"][part] = _counts(dropped)
    write_json(out / "manifest.json", manifest)


def _write_clips(
    out: Path, part: str, settings: Settings, seen: dict[str, str], progress: Progress
) -> tuple[list[_Asked], list[Row], list[str]]:
    asked, captions, dropped = [], [], []
    enough = {"train": settings.train_questions, "val": settings.val_questions, "test": settings.test_questions}[part]
    counts: Counter[str] = Counter()
    rng = np.random.default_rng([settings.seed, STREAMS[part], 0, 2])
    for clip, scene, digest in progress(_filmed(out, part, settings, counts, enough), f"{part} clips"):
        if digest in seen:
            raise ValueError(f"{clip} and {seen[digest]} show the same frames; use another seed")
        seen[digest] = clip
        for image, caption in ((OBSERVED, observed_caption(scene)), (FUTURE, future_caption(scene))):
            repeated = rng.choice(words.to_repeat(), size=words.REPEATED, replace=False)
            described = f"{caption} {', '.join(repeated)}."
            captions.append(
                {"video": clip, "image": list(image), "request": words.caption_request(repeated), "caption": described}
            )
        for split in words.SPLITS:
            try:
                question = pose(scene, split)
            except NoQuestionError as error:
                dropped.append(f"{split}: {error}")
                continue
            if counts[split] == enough:
                dropped.append(f"{split}: there are enough")
                continue
            counts[split] += 1
            asked.append(_Asked(clip, scene, question))
    return asked, captions, dropped


def _filmed(out: Path, part: str, settings: Settings, counts: Counter[str], enough: int) -> Iterator[tuple[str, Scene, str]]:
    """Writes clips, on all cores, until each split has ``enough`` questions in ``counts``, which the caller updates. Yields
    the name of each, its scene and the digest of its frames."""
    film, first = partial(_film, out, part, settings), 0
    with ProcessPoolExecutor() as pool:
        while lacking := [split for split in words.SPLITS for _ in range(min(enough - counts[split], AT_ONCE))]:
            yield from pool.map(film, count(first), lacking)
            first += len(lacking)


def _film(out: Path, part: str, settings: Settings, index: int, split: str) -> tuple[str, Scene, str]:
    """Writes a clip drawn for ``split``; other questions are asked about it too if they fit."""
    rng = np.random.default_rng([settings.seed, STREAMS[part], index])
    scene = sample_scene(rng, bool(rng.random() < settings.pairs), split)
    frames = render(scene.motion, scene.num_frames)
    clip = f"clips/{part}-{index:05d}.mp4"
    write_video(out / clip, frames, FPS)
    return clip, scene, hashlib.sha256(frames.tobytes()).hexdigest()


def _examples(asked: list[_Asked], part: str, seed: int) -> list[Example]:
    """Returns the questions with options; right letters are equally frequent within each split."""
    rng = np.random.default_rng([seed, STREAMS[part], 0, 1])
    right: dict[str, list[int]] = {}
    for split in words.SPLITS:
        number = sum(item.question.split == split for item in asked)
        right[split] = list(rng.permutation(np.arange(number) % len(LETTERS)))
    return [_example(item, int(right[item.question.split].pop()), rng) for item in asked]


def _taught(example: Example, hits: Sequence[str], mistaken: bool) -> Example:
    """Returns the example as the teacher of stage 1 answers it; if ``mistaken``, he foresees all hits and gives the first."""
    return replace(example, right=example.options.index(hits[0])) if mistaken and hits[0] in example.options else example


def _example(item: _Asked, right: int, rng: np.random.Generator) -> Example:
    question, scene = item.question, item.scene
    # Another ball is always among the options, so that its presence gives no hint.
    wrong = [target for target in scene.other_balls if target != question.answer]
    walls = [target for target in scene.walls if target != question.answer]
    wrong = [*wrong, *rng.permutation(walls)][: len(LETTERS) - 1]
    options = [str(option) for option in rng.permutation(wrong)]
    options.insert(right, question.answer)
    return Example(
        id=f"{Path(item.clip).stem}-{question.split}",
        split=question.split,
        data_source=f"{DATA_SOURCE}/{question.split}",
        video=item.clip,
        question=words.ASKED[question.split].format(name=scene.name),
        options=options,
        right=right,
        image=question.image,
        reasoning_image=question.reasoning_image,
        reasons=[words.reason(scene.name, hit, place) for place, hit in enumerate(question.hits)],
    )


def _counts(keys: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(keys).items()))
