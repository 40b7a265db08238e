"""Stage 1 on one rank and on two, in one micro-batch and in several, and on ranks that hold different things."""

import json
import sys
from pathlib import Path

import pytest
import torch

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.toy import tiny

sys.path.insert(0, str(Path(__file__).parents[1] / "rl"))
from actor_harness import run_ranks

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).with_name("stage_1_ranks.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stage_1")
    write_set(out / "data", Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(out / "model", seed=1)
    said = [{"role": "user", "content": "Which wall?"}, {"role": "assistant", "content": "<answer>left wall</answer>"}]
    (out / "text.jsonl").write_text(json.dumps({"messages": said}) + "\n" + json.dumps({"messages": said}) + "\n")
    return out


def thirty_steps(folder: Path, ranks: int, max_tokens: str = "") -> dict:
    arguments = [str(folder / "model"), str(folder / "data/train.parquet"), max_tokens]
    found = run_ranks("thirty_steps", ranks, folder, *arguments, script=SCRIPT)
    assert len(found) == ranks
    return found[0]


def test_thirty_steps_are_the_same_on_two_ranks_and_in_micro_batches(folder: Path) -> None:
    one, cut = thirty_steps(folder, 1), thirty_steps(folder, 1, max_tokens="300")
    assert {step["micro_batches"] for step in one["steps"]} == {1} and min(step["micro_batches"] for step in cut["steps"]) > 1
    losses = torch.tensor([step["loss"] for step in one["steps"]])
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    for other in (thirty_steps(folder, 2), cut):
        theirs = torch.tensor([step["loss"] for step in other["steps"]])
        # Relative to a loss that falls from 7; measured 1.6e-7.
        assert float(((losses - theirs) / losses).abs().max()) <= 1e-6
        assert abs(other["steps"][0]["grad_norm"] / one["steps"][0]["grad_norm"] - 1) <= 1e-6


def test_ranks_may_hold_different_modalities(folder: Path) -> None:
    """docs/differences.md, row 31: a vision call on one rank alone would leave the other waiting for ever."""
    arguments = [str(folder / "model"), str(folder / "data/train.parquet"), str(folder / "text.jsonl")]
    first, second = run_ranks("modalities", 2, folder, *arguments, script=SCRIPT)
    assert first == second and len(first) == 9
    for name, losses in first.items():
        assert len(losses) == 8 and losses[-1] < losses[0], name
