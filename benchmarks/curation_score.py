"""``python benchmarks/curation_score.py [--candidates N [N ...]]``: what scoring costs besides the model.

Makes N candidates over the clips of a small synthetic set and scores them (8 rollouts a condition, verdicts by rule) with a
backend that answers at once. Prints a JSON line for each N: seconds, candidates a second, and the peaks of resident memory of
the driver and of the largest worker, shared memory left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from tqdm import tqdm

from data_prep.curation import candidates
from data_prep.curation.backends import Question, Sampling, Text, Tokens
from data_prep.toy.synthetic.writing import Settings, write_set

TRUTH = "the left wall"


@dataclass(frozen=True)
class AtOnce:
    """A backend without a model: half of its answers are right."""

    model: str = "none"
    sampling: Sampling = Sampling()  # noqa: RUF009  frozen

    def start(self) -> AtOnce:
        return self

    @property
    def tokens(self) -> Tokens:
        return Tokens()

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        return [[Text(f"<answer>{_answer(seed)}</answer>", None) for seed in question.seeds] for question in questions]


def _answer(seed: int) -> str:
    return random.Random(seed).choice((TRUTH, "the right wall"))


def made(count: int, clips: Sequence[str]) -> Iterator[candidates.Candidate]:
    for number in range(count):
        yield {
            "id": f"{number:08d}",
            "source": f"made: row {number}",
            "video": clips[number % len(clips)],
            "question": "<image><image><image><image>What does it hit?",
            "answer": TRUTH,
            "options": [],
            "image": [1, 2, 3, 4],
            "reasoning_image": [5, 6],
            "response": "",
            "category": "",
        }


class Memory(threading.Thread):
    """Peaks of memory of this process and of the largest of those it started, in bytes, looked at twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver = self.worker = 0

    def run(self) -> None:
        this = psutil.Process()
        while True:
            self.driver = max(self.driver, _own(this))
            for process in this.children(recursive=True):
                try:
                    if process.name().startswith("ray::Map"):
                        self.worker = max(self.worker, _own(process))
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.5)


def _own(process: psutil.Process) -> int:
    memory = process.memory_info()
    return memory.rss - memory.shared


def measure(count: int, videos: Path, folder: Path) -> dict[str, float]:
    """In a process of its own, so that each N starts from the same memory."""
    import ray

    from data_prep.curation import pipeline
    from data_prep.curation.job import Job
    from data_prep.curation.patience import Patience
    from data_prep.curation.questions import Prompts

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    clips = sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4"))
    candidates.write(folder / "candidates.parquet", made(count, clips))
    ray.init("local", include_dashboard=False, log_to_driver=False)
    memory = Memory()
    memory.start()
    job = Job(folder / "candidates.parquet", videos, folder / "out", Prompts.read())
    started = time.monotonic()
    finished = pipeline.score(job, AtOnce(), pipeline.Replicas(), None, Patience())
    for _ in tqdm(finished, total=pipeline.shards(job), leave=False):
        pass
    seconds = time.monotonic() - started
    ray.shutdown()
    return {
        "candidates": count,
        "seconds": round(seconds, 1),
        "candidates_per_s": round(count / seconds, 1),
        "driver_mb": round(memory.driver / 1e6),
        "largest_worker_mb": round(memory.worker / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    args = parser.parse_args()
    for count in args.candidates:
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            videos = Path(folder) / "set"
            write_set(videos, Settings(train_questions=13, val_questions=2, test_questions=2), lambda items, label: items)
            print(json.dumps(process.submit(measure, count, videos, Path(folder)).result()), flush=True)


if __name__ == "__main__":
    main()
