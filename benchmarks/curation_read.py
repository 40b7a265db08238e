"""``python benchmarks/curation_read.py --rows N``: seconds, rows a second and memory of reading N rows of TwiFF to candidates.

The rows are metadata of TwiFF's form and size, made up, in several parquet files of a temporary folder; no clips are looked at.
Reading runs in a process of its own, whose peak of resident memory is printed, in a JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.curation.read import read

ROWS_PER_FILE = 100_000
WORDS = ("the", "a", "person", "ball", "camera", "moves", "turns", "pours", "opens", "left", "right", "then", "slowly", "door")
CATEGORIES = ("instructional", "predictive", "camera")


def make(folder: Path, rows: int, seed: int = 0) -> list[Path]:
    """Files of rows with some 20 words of question and 40 of each thought, as text of the JSON metadata has them."""
    rng, files = random.Random(seed), []
    for first in range(0, rows, ROWS_PER_FILE):
        files.append(folder / f"twiff-{first:08d}.parquet")
        made = pa.Table.from_pylist(list(_rows(rng, first, min(first + ROWS_PER_FILE, rows))))
        pq.write_table(made, files[-1], row_group_size=10_000)
    return files


def _rows(rng: random.Random, first: int, after: int) -> Iterator[dict[str, object]]:
    for number in range(first, after):
        future = sorted(rng.sample(range(5, 9), rng.choice((1, 1, 1, 2, 2, 3))))
        thoughts = "".join(f"THOUGHT {n}: <image>{_text(rng, 40)}" for n in range(len(future)))
        yield {
            "video": f"{number % 1000:03d}/{number:011x}_{rng.randrange(99)}.mp4",
            "question": f"{_text(rng, 20)} {number}?",
            "answer": f"{thoughts}<answer>{_text(rng, 12)}</answer>",
            "question_images_index": [1, 2, 3, 4],
            "reasoning_images_index": future,
            "meta_data": json.dumps({
                "classification": rng.choice(CATEGORIES), "start": 1.5, "end": 9.5, "Process": _text(rng, 40),
                "Summary": _text(rng, 20),
            }),
        }  # fmt: skip


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def measure(files: list[Path], folder: Path) -> dict[str, float]:
    out, started = folder / "candidates.parquet", time.perf_counter()
    read(files, out, folder, folder / "skipped.jsonl", max_bad_rate=0.0, check_clips=False)
    seconds = time.perf_counter() - started
    rows = pq.ParquetFile(out).metadata.num_rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"rows": rows, "seconds": round(seconds, 1), "rows_per_second": round(rows / seconds), "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        files = make(Path(folder), args.rows)
        print(json.dumps(other.submit(measure, files, Path(folder)).result()))


if __name__ == "__main__":
    main()
