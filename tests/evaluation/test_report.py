"""The report folder of a run, from folders as trainings and evaluations leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_records import record
from torch.utils.tensorboard import SummaryWriter

from future_l1_verl.data.video import write_video
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.comparison import compare
from future_l1_verl.evaluation.report import write_report
from future_l1_verl.evaluation.scoring import summarise

RIGHT, WRONG = {"scores": {"accuracy": 1.0}}, {"scores": {"accuracy": 0.0}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for stage, tag in (("sft", "val/loss"), ("rl", "critic/score/mean")):
        with SummaryWriter(str(tmp_path / "tensorboard" / stage)) as writer:
            writer.add_scalar(tag, 1.0, 1)
    write_video(tmp_path / "clip.mp4", np.zeros((4, 16, 16, 3), np.uint8), 4)
    return tmp_path


def evaluate(run: Path, stage: str, *answers: dict[str, Any]) -> Path:
    records = [
        record(row, video=str(run / "clip.mp4"), frames=[0, 2], problem="<image><image>Where?", text=f"said {row}", **answer)
        for row, answer in enumerate(answers)
    ]
    folder = run / stage
    folder.mkdir()
    runs.begin(folder, {"questions": len(records)})
    runs.append(folder, records)
    (folder / runs.SUMMARY).write_text(json.dumps({"settings": {}, "splits": summarise(records)}))
    return folder


def test_the_report_has_accuracy_by_stage_and_split_and_a_sample_of_each_split(run: Path) -> None:
    stages = {
        "before": evaluate(run, "before", WRONG, WRONG, WRONG | {"split": "2-hop"}),
        "after": evaluate(run, "after", RIGHT, WRONG, WRONG | {"split": "2-hop", "parsed": False, "options": []}),
    }
    report = write_report(run, stages, {})
    text = report.read_text()
    assert "| before | 1-hop | 2 | 0.000 (0.000 to 0.000) | 1.000 " in text
    assert "| after | 1-hop | 2 | 0.500 (0.000 to 1.000) | 1.000 " in text
    assert "| after | 2-hop | 1 | 0.000 (0.000 to 0.000) | 1.000 | 0.000 " in text
    samples = [line.split(". ")[1] for line in text.splitlines() if line.startswith("### ")]
    assert sorted(samples) == ["1-hop: correct", "1-hop: wrong", "2-hop: unparsed"]
    assert "Where? Options: left, right, top. Right: **left**." in text and "Where? Right: **left**." in text
    for picture in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert (report.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_the_report_says_what_interventions_did(run: Path) -> None:
    stage = evaluate(run, "after", RIGHT, RIGHT)
    swapped = evaluate(run, "swap", RIGHT, WRONG | {"answer": "right"})
    compared = compare(runs.read_finished(stage), runs.read_finished(swapped))
    (swapped / runs.COMPARISON).write_text(json.dumps(compared))
    text = write_report(run, {"after": stage}, {"swap": swapped}).read_text()
    # Of two questions, one is lost: resampled, the mean difference is -1, -0.5 or 0.
    assert "| swap | all | 2 | 1.000 | 0.500 | -0.500 (-1.000 to 0.000) | 0.500 |" in text


def test_what_is_no_result_is_not_reported(run: Path) -> None:
    with pytest.raises(runs.RunError, match=r"is no result.*1 verdicts are missing"):
        write_report(run, {"after": evaluate(run, "after", RIGHT, {"scores": None})}, {})
    with pytest.raises(runs.RunError, match=r"holds no settings\.json"):
        write_report(run, {"before": run / "before"}, {})
