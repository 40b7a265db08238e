"""Validation during stage 2: the figures of an evaluation, by split, beside verl's own."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from transformers import AutoProcessor

from future_l1_verl.data.video import write_video
from future_l1_verl.rl.dataset import LatentRLDataset
from future_l1_verl.rl.modes import SyncTrainer
from future_l1_verl.toy import tiny

# Per answer: source, question, split, accuracy, parsed. Question "p" is answered twice; NaN is a missing verdict.
ANSWERS = [
    ("a", "p", "1-hop", 1.0, 1.0),
    ("a", "p", "1-hop", 0.0, 0.0),
    ("a", "q", "2-hop", 1.0, 1.0),
    ("b", "r", "1-hop", 1.0, 1.0),
    ("b", "s", "1-hop", 1.0, 1.0),
    ("b", "t", "1-hop", math.nan, 0.0),
    ("b", "u", "3-hop", math.nan, 0.0),
]


@pytest.fixture(scope="module")
def metrics() -> dict[str, float]:
    sources, uids, splits, acc, parsed = map(list, zip(*ANSWERS, strict=True))
    judged = [float(not math.isnan(value)) for value in acc]
    infos = {"reward": [0.0] * 7, "acc": acc, "parsed": parsed, "judged": judged, "split": splits}
    expected = {(source, uid): uids.count(uid) for source, uid in zip(sources, uids, strict=True)}
    # As verl calls it (trainer_base.py:1197).
    return object.__new__(SyncTrainer)._val_metrics_update(sources, uids, infos, [], expected_acc_counts=expected)


def of_split(metrics: dict[str, float], split: str) -> dict[str, float]:
    return {name.split("/")[-1]: value for name, value in metrics.items() if name.startswith(f"val/{split}/")}


def test_each_split_has_its_accuracy_over_all_sources_and_answers(metrics: dict[str, float]) -> None:
    one = of_split(metrics, "1-hop")
    # Five answers, one without a verdict; of the four others three are right and three parsed.
    assert (one["n"], one["missing"], one["accuracy"], one["parsed"]) == (5, 1, 0.75, 0.75)
    # Resampled means are Binomial(4, 0.75) / 4: at most 0.25 with a chance of 0.051 and 0 with 0.004; 1 with 0.32.
    assert (one["accuracy_low"], one["accuracy_high"]) == (0.25, 1.0)
    whole = of_split(metrics, "all")
    assert (whole["n"], whole["missing"], whole["accuracy"]) == (7, 2, pytest.approx(4 / 5))
    two = {"n": 1, "missing": 0, "accuracy": 1.0, "parsed": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0}
    assert of_split(metrics, "2-hop") == two


def test_a_split_without_verdicts_has_counts_and_no_accuracy(metrics: dict[str, float]) -> None:
    assert of_split(metrics, "3-hop") == {"n": 1, "missing": 1}


def test_verls_own_figures_by_source_stay(metrics: dict[str, float]) -> None:
    assert metrics["val-core/b/acc/mean@1"] == 1.0  # of "r" and "s"
    assert metrics["val-core/a/acc/mean@2"] == 0.5  # of "p" alone
    assert metrics["val-aux/unjudged"] == 2


def test_the_split_of_a_row_is_its_source_where_it_names_none(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", np.zeros((4, 16, 16, 3), np.uint8), 4)
    row = {"problem": "<image>Where?", "answer": "left", "video": "clip.mp4", "image": [1], "data_source": "source"}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(each) for each in (row, row | {"split": "2-hop"})))
    tiny.build(tmp_path / "model")
    config = OmegaConf.create({
        "system_prompt": None, "observed": "frames", "videos": None, "video_frames": 4, "max_prompt_length": 64,
        "manifest": str(tmp_path / "skipped.jsonl"), "max_bad_rate": 0.0,
    })  # fmt: skip
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    questions = LatentRLDataset(str(tmp_path / "rows.jsonl"), None, config, processor)
    assert [question["split"] for question in (questions[0], questions[1])] == ["source", "2-hop"]
