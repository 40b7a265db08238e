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
from future_l1_verl.evaluation.curves import moving_mean
from future_l1_verl.evaluation.scoring import summarise
from future_l1_verl.toy.report import write_report

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
    open_question = WRONG | {"split": "2-hop", "options": []}
    stages = {
        "before": evaluate(run, "before", WRONG, WRONG, open_question),
        "after": evaluate(run, "after", RIGHT, WRONG, open_question | {"parsed": False}),
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


def test_the_report_compares_the_last_two_stages_question_by_question(run: Path) -> None:
    lost = evaluate(run, "untrained", WRONG, WRONG)
    stages = {"untrained": lost, "SFT": evaluate(run, "sft", RIGHT, WRONG), "LA-DAPO": evaluate(run, "rl", WRONG, WRONG)}
    text = write_report(run, stages, {}).read_text()
    # One of two questions is lost: resampled, the mean difference is -1, -0.5 or 0; its sign is one toss of a coin.
    assert "| all | 2 | 0.500 | 0.000 | -0.500 (-1.000 to 0.000) | 1 |" in text
    assert text.count("McNemar") == 1


def test_the_report_begins_with_what_stage_2_taught(run: Path) -> None:
    stages = {"after": evaluate(run, "after", RIGHT)}
    with SummaryWriter(str(run / "tensorboard/rl")) as writer:
        for step, right in ((0, {"1-hop": 3, "2-hop": 1}), (10, {"1-hop": 4, "2-hop": 5})):
            for split, count in right.items():
                writer.add_scalar(f"val/{split}/accuracy", count / 8, step)
            figures = {
                "n": 16,
                "accuracy": sum(right.values()) / 16,
                "accuracy_low": 0.25,
                "accuracy_high": 0.75,
                "parsed": 0.5,
            }
            for name, value in figures.items():
                writer.add_scalar(f"val/all/{name}", value, step)
    first = write_report(run, stages, {}).read_text().splitlines()[2]
    assert first == (
        "From step 0 to step 10 accuracy on 16 validation questions went from 0.250 to 0.562 (95 % interval at the end: 0.250 "
        "to 0.750); most in 2-hop (from 0.125 to 0.625), least in 1-hop (from 0.375 to 0.500); "
        "the share of answers that name an option from 0.500 to 0.500."
    )


def test_the_report_says_what_could_be_learnt(run: Path) -> None:
    readers = {"with_future": 1.0, "without_future": 0.75, "chance": 0.25, "majority": 0.5}
    (run / "data").mkdir()
    (run / "data/manifest.json").write_text(json.dumps({"headroom": {"test": {"1-hop": readers}}, "taught": {"1-hop": 0.5}}))
    text = write_report(run, {"after": evaluate(run, "after", RIGHT)}, {}).read_text()
    assert "| 1-hop | 0.250 | 0.500 | 0.750 | 1.000 |" in text


def test_a_moving_mean_looks_back_only() -> None:
    curve = [(step, float(step % 2)) for step in range(10)]
    assert moving_mean(curve)[:2] == [(0, 0.0), (1, 0.5)]
    assert moving_mean(curve)[-1] == (9, 3 / 5), "of 5, 6, 7, 8 and 9"


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
