"""Stage 2 with adapters, as in recipes/la_dapo_lora.sh, whose updates cut answers: real processes on the smallest model."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from stage_2_run import LEARNS, Run, assert_other_weights_say_otherwise, assert_parity

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.modeling.export import export, find
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.e2e

VALIDATED = 4 * 2  # two questions of each split


def test_adapters_reach_the_rollout_and_answers_that_an_update_cuts_are_continued(tmp_path: Path) -> None:
    write_set(tmp_path / "data", Settings(train_questions=5, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(tmp_path / "model")
    run = Run(
        tmp_path,
        tmp_path / "log",
        *["pools=colocated_async", "ablation=depo", *LEARNS],
        *["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_alpha=8"],
        *["actor_rollout_ref.rollout.load_format=safetensors", "actor_rollout_ref.actor.optim.lr=1e-2"],
        *["trainer.total_training_steps=5", "data.max_response_length=320", "trainer.test_freq=3"],
        # Half of the answers that are asked for begin when others end, so that an update finds some on their way.
        "actor_rollout_ref.rollout.max_num_seqs=8",
    )
    assert run.ends() == 0, run.log.read_text()[-4000:]
    steps = run.metrics()
    assert sorted(steps) == [1, 2, 3, 4, 5]
    assert all(metrics["actor/grad_norm"] > 0 for metrics in steps.values())
    for metrics in steps.values():
        assert_parity(metrics)
    assert_other_weights_say_otherwise(steps)
    assert [step for step, metrics in steps.items() if metrics.get("val/all/n") == VALIDATED] == [3, 5]
    assert any(metrics["off_policy/mixed_answers"] > 0 for metrics in steps.values())
    # DePO's terms of latents, and of both kinds of entries to the reference: the actor without adapters, which change much, so
    # that parity says that the rollout has them.
    assert all(metrics["actor/latent/entries"] > 0 for metrics in steps.values())
    assert steps[1]["actor/text/ref_kl"] == 0 and steps[5]["actor/text/ref_kl"] > 1e-3
    assert steps[1]["actor/latent/ref_kl"] == 0 < steps[5]["actor/latent/ref_kl"]

    export(find(tmp_path / "checkpoints"), tmp_path / "exported")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "exported"))
    assert before.keys() == after.keys()
    assert {name.split(".")[-2] for name in before if not before[name].equal(after[name])} == {
        *["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    }
