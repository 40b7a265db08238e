"""Stage 2 with adapters: real processes on the smallest model, with the settings of recipes/la_dapo_lora.sh."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from stage_2_run import LEARNS, Run

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.modeling.export import export, find
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.e2e


def test_adapters_are_trained_and_reach_the_rollout(tmp_path: Path) -> None:
    write_set(tmp_path / "data", Settings(train_questions=8, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(tmp_path / "model")
    run = Run(
        tmp_path,
        tmp_path / "log",
        *["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=8"],
        *["actor_rollout_ref.rollout.load_format=safetensors", "actor_rollout_ref.actor.optim.lr=1e-2"],
        *[*LEARNS, "actor_rollout_ref.rollout.n=4"],
        "trainer.total_training_steps=3",
    )
    assert run.ends() == 0, run.log.read_text()[-4000:]
    steps = run.metrics()
    assert sorted(steps) == [1, 2, 3]
    assert all(metrics["actor/grad_norm"] > 0 for metrics in steps.values())
    for metrics in steps.values():
        assert metrics["parity/text_gap_max"] < 1e-5 and metrics["parity/decision_gap_max"] < 1e-5
    # The reference is the actor without adapters, which change much: parity says that the rollout has them.
    assert steps[1]["actor/text/ref_kl"] == 0 and steps[3]["actor/text/ref_kl"] > 1e-3

    export(find(tmp_path / "checkpoints"), tmp_path / "exported")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "exported"))
    assert before.keys() == after.keys()
    assert {name.split(".")[-2] for name in before if not before[name].equal(after[name])} == {
        *["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    }
