"""Scoring whose driver and workers are killed again and again, against one that is left alone."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from score_with_stub import TRUTH

from data_prep.curation import candidates, scores
from data_prep.curation.questions import seeds
from data_prep.toy.synthetic.writing import Settings, write_set

KILLS = 6
CLIPS = 24

pytestmark = pytest.mark.e2e


def start(folder: Path, out: str, seconds: float) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("score_with_stub.py")
    arguments = [folder / "candidates.parquet", folder / out, folder / f"{out}.asked", str(seconds)]
    with (folder / f"{out}.log").open("a") as log:
        return subprocess.Popen([sys.executable, script, *arguments], stdout=log, stderr=log)


def scored(folder: Path) -> int:
    return len(list((folder / "scores").glob("shard-*.parquet")))


def table(folder: Path) -> list[dict]:
    return scores.read(folder).sort_by("id").to_pylist()


def workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [process for process in psutil.Process(driver.pid).children(recursive=True) if "ray::Map" in process.name()]


def candidate(row: dict) -> candidates.Candidate:
    values = {
        "question": row["conversations"][0]["value"],
        "answer": TRUTH,
        "options": [],
        "reasoning_image": [5, 7],
        "response": "",
    }
    return {name: row.get(name) for name in candidates.SCHEMA.names} | values | {"category": row["split"]}


def test_the_table_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    write_set(
        tmp_path / "set", Settings(train_questions=CLIPS // 4, val_questions=2, test_questions=2), lambda items, label: items
    )
    made = pq.read_table(tmp_path / "set/train.parquet").to_pylist()
    sources = ({"source": f"row {number}", "video": str(tmp_path / "set" / row["video"])} for number, row in enumerate(made))
    rows = [candidate(row | changed) for row, changed in zip(made, sources, strict=True)]
    count = candidates.write(tmp_path / "candidates.parquet", rows)
    assert count == CLIPS

    alone = start(tmp_path, "alone", seconds=0)
    assert alone.wait(timeout=1800) == 0, (tmp_path / "alone.log").read_text()[-3000:]

    generator = random.Random(0)
    driver = start(tmp_path, "disturbed", seconds=0.15)
    for kill in range(KILLS):
        time.sleep(generator.uniform(0, 3))
        while not (found := workers(driver)):
            assert driver.poll() is None, f"ended after {kill} kills: {(tmp_path / 'disturbed.log').read_text()[-3000:]}"
            time.sleep(0.1)
        if kill % 3 == 2:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            driver = start(tmp_path, "disturbed", seconds=0.15)
        else:
            generator.choice(found).kill()
    assert driver.wait(timeout=1800) == 0, (tmp_path / "disturbed.log").read_text()[-3000:]

    assert table(tmp_path / "disturbed") == table(tmp_path / "alone")
    # A shard is one candidate: each kill may cost the one that was being asked.
    asked = Counter(map(int, (tmp_path / "disturbed.asked").read_text().split()))
    all_seeds = [seed for row in rows for condition in scores.CONDITIONS for seed in seeds(0, row["id"], condition, 4)]
    assert set(asked) == set(all_seeds)
    assert asked.total() - len(all_seeds) <= KILLS * 8
