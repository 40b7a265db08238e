"""``python benchmarks/curation_select.py --candidates N``: how long ``select`` takes, and how much memory.

Makes N candidates with their scores (8 rollouts a condition) and a benchmark of 2,000 questions in a temporary folder. Prints a
JSON line: seconds and rows a second of ``select`` with control and the comparison of video ids and questions (frames are
hashed for selected candidates only, whatever N), the peak of its resident memory, and how many of each group it found.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_prep.curation import candidates, scores
from data_prep.curation.select import run
from future_l1_verl.cli.curation.select import add_arguments

ROLLOUTS = 8
BENCHMARK = 2000
QUESTION = (
    "<image><image><image><image>Candidate {}: given what these frames show, what is going to happen to the object on the left?"
)
RESPONSE = (
    "<image><reason>" + "The object keeps moving until it meets another. " * 16 + "</reason><answer>It falls, {}.</answer>"
)
TEXT = "<reason>" + "The frames show that it moves. " * 8 + "</reason><answer>It falls.</answer>"


def write_candidates(path: Path, numbers: range, name: str) -> None:
    with pq.ParquetWriter(path, candidates.SCHEMA) as writer:
        for start in tqdm(range(0, len(numbers), candidates.ROWS_AT_ONCE), desc=path.name, leave=False):
            part = numbers[start : start + candidates.ROWS_AT_ONCE]
            writer.write_table(pa.table({
                "id": [f"{name}-{number:08d}" for number in part],
                "source": [f"{name}.json: row {number}" for number in part],
                "video": [f"part-{number % 100:02d}/{name}{number:011x}.mp4" for number in part],
                "question": [QUESTION.format(f"{name} {number}") for number in part],
                "answer": ["It falls."] * len(part),
                "options": [[]] * len(part),
                "image": [[1, 2, 3, 4]] * len(part),
                "reasoning_image": [[5, 6, 7][: 1 + number % 3] for number in part],
                "response": [RESPONSE.format(number) for number in part],
                "category": [("instructional", "predictive", "camera")[number % 3] for number in part],
            }, candidates.SCHEMA))  # fmt: skip


def write_scores(folder: Path, count: int, per_shard: int) -> None:
    """Counts are binomial, with a chance for each condition of each candidate."""
    (folder / "scores").mkdir()
    rng = np.random.default_rng(0)
    for shard, start in enumerate(tqdm(range(0, count, per_shard), desc="scores", leave=False)):
        size = min(per_shard, count - start)
        columns = {"id": pa.array([f"pool-{number:08d}" for number in range(start, start + size)])}
        chance = rng.random((size, 1))
        for condition, better in (("base", 0.0), ("hint", 0.2)):
            correct = rng.random((size, ROLLOUTS)) < np.minimum(chance + better, 1)
            columns[condition] = rollouts(correct)
            columns[f"{condition}_correct"] = pa.array(correct.sum(1), pa.int32())
        table = pa.table({name: columns[name] for name in scores.SCHEMA.names}, scores.SCHEMA)
        pq.write_table(table, folder / "scores" / f"shard-{shard:06d}.parquet")


def rollouts(correct: np.ndarray) -> pa.Array:
    """Of bools ``[candidates, ROLLOUTS]``."""
    size = correct.size
    fields = {
        "seed": pa.array(range(size), pa.int64()),
        "text": pa.array([f"{TEXT}{number}" for number in range(size)]),
        "correct": pa.array(correct.ravel()),
        "parsed": pa.array([True] * size),
        "error": pa.nulls(size, pa.string()),
    }
    structs = pa.StructArray.from_arrays([fields[field.name] for field in scores.ROLLOUT], fields=list(scores.ROLLOUT))
    return pa.ListArray.from_arrays(pa.array(range(0, size + 1, ROLLOUTS), pa.int32()), structs)


def measured(flags: list[str]) -> tuple[float, float]:
    """Seconds and GB of a selection, in a process of its own."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    started = time.perf_counter()
    run(parser.parse_args(flags))
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--per-shard", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_candidates(folder / "pool.parquet", range(args.candidates), "pool")
        write_candidates(folder / "bench.parquet", range(BENCHMARK), "bench")
        write_scores(folder, args.candidates, args.per_shard)
        files = {
            "candidates": folder / "pool.parquet",
            "scores": folder,
            "benchmark": folder / "bench.parquet",
            "out": folder / "out",
        }
        flags = [part for flag, path in files.items() for part in (f"--{flag}", str(path))]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds, gigabytes = pool.submit(measured, [*flags, "--control", "--overlap", "video", "question"]).result()
        report = json.loads((folder / "out" / "report.json").read_text())
    print(json.dumps({
        "candidates": args.candidates, "per_shard": args.per_shard, "seconds": seconds,
        "rows_per_second": args.candidates / seconds, "peak_gb": gigabytes,
        **{group: report[group] for group in ("passing", "selected", "control")},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
