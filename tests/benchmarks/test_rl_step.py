"""Phases of a step, from a tensorboard folder written here."""

from pathlib import Path

import pytest
import rl_step
from torch.utils.tensorboard import SummaryWriter


def written(folder: Path, steps: list[dict[str, float]]) -> Path:
    with SummaryWriter(folder) as writer:
        for number, timings in enumerate(steps, 1):
            for name, seconds in timings.items():
                writer.add_scalar(f"timing_s/{name}", seconds, number)
    return folder


def test_medians_of_the_phases_and_what_is_left(tmp_path: Path) -> None:
    first = {"gen": 50.0, "update_actor": 50.0, "step": 200.0}
    steps = [
        {"gen": 1.0, "update_actor": 2.0, "step": 3.5},
        {"gen": 3.0, "update_actor": 2.0, "save_checkpoint": 4.0, "step": 9.5},
    ]
    found = rl_step.phases(written(tmp_path, [first, *steps]))
    # Other: 3.5 - 3 and 9.5 - 9. A checkpoint in one of two steps counts half.
    expected = {
        "rollout": 2.0,
        "update of the actor": 2.0,
        "checkpoint": 2.0,
        "other": 0.5,
        "step": 6.5,
        "steps": 2,
        "reference": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_one_step_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 steps with timing_s/step; two are needed"):
        rl_step.phases(written(tmp_path, [{"step": 1.0}]))
