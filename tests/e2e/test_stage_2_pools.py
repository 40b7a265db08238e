"""Stage 2 where rollout and actor do not take turns: real processes on the smallest model, with logical devices."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from stage_2_run import Run, assert_other_weights_say_otherwise, assert_parity

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.e2e

QUESTIONS, BATCH, STEPS = 20, 4, 6
VALIDATED = 4 * 2  # two questions of each split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = Settings(train_questions=QUESTIONS // 4, val_questions=2, test_questions=2)  # of each of four splits
    write_set(tmp_path / "data", settings, lambda items, label: items)
    rows = pd.read_parquet(tmp_path / "data/train.parquet")
    for number, (human, _) in enumerate(rows["conversations"]):
        human["value"] = f"{number}. {human['value']}"
    rows.to_parquet(tmp_path / "data/train.parquet")
    tiny.build(tmp_path / "model")
    return tmp_path


def questions(folder: Path, step: int) -> set[int]:
    """Numbers of the questions that a step trained on."""
    lines = (folder / f"rollouts/{step}.jsonl").read_text().splitlines()
    return {int(re.search(r"(\d+)\. ", json.loads(line)["input"]).group(1)) for line in lines}


def test_on_pools_of_their_own_killed_and_resumed_with_nothing_lost(folder: Path) -> None:
    """Two actors, a rollout and a reference on devices of their own."""
    separate = [
        *["pools=separate", "trainer.n_gpus_per_node=2", "actor_rollout_ref.rollout.n_gpus_per_node=1"],
        *["reference_pool.nnodes=1", "reference_pool.n_gpus_per_node=1"],
        *["ray_kwargs.ray_init.num_gpus=4", "ray_kwargs.ray_init.num_cpus=16"],
        *[f"trainer.total_training_steps={STEPS}", "trainer.test_freq=3"],
        # Large steps, so that log-probs of other weights than those that wrote a token are far from the rollout's.
        "actor_rollout_ref.actor.optim.lr=1e-3",
        # Four updates of the actor to one of the rollout, each of one question, whose two answers are divided between two
        # ranks.
        *["trainer.v1.separate_async.parameter_sync_step=4", "actor_rollout_ref.actor.ppo_mini_batch_size=1"],
        "actor_rollout_ref.actor.use_dynamic_bsz=false",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=2",
    ]
    first = Run(folder, folder / "first.log", *separate)
    first.wait_for_step(4)
    first.engine().kill()
    assert first.ends() != 0
    assert re.search(r"EngineDied|EngineDead|a rollout of prompt .* failed", first.log.read_text())
    assert first.left_behind() == []
    saved = int((folder / "checkpoints/latest_checkpointed_iteration.txt").read_text())

    second = Run(folder, folder / "second.log", *separate)
    assert second.ends() == 0, second.log.read_text()[-4000:]
    assert second.left_behind() == []
    steps = first.metrics() | second.metrics()
    assert min(second.metrics()) == saved + 1 and sorted(steps) == list(range(1, STEPS + 1))
    for step in range(1, STEPS + 1):
        # The first step after a start finds the weights of its answers gone, if all are of the step before.
        if step != saved + 1 or steps[step]["parity/entries"]:
            assert_parity(steps[step])
    assert_other_weights_say_otherwise(steps)
    assert {step: steps[step].get("val/all/n") for step in (3, 4, 6)} == {3: VALIDATED, 4: None, 6: VALIDATED}

    # At most a batch is asked ahead: five steps' worth of questions are trained on within six.
    assert set.union(*(questions(folder, step) for step in range(1, STEPS + 1))) == set(range(QUESTIONS))
