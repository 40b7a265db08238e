"""The config that is kept with a run, and what a run that goes on may change of it."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from future_l1_verl.config.record import SHOWN, TRACKER, save_resolved

STAGES = ("sft", "rl")


def tree(stage: str, folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        return compose("main", overrides=[f"trainer.default_local_dir={folder}", *overrides])


def begun(stage: str, folder: Path, *overrides: str) -> str:
    """A run that has saved a step. Returns what its config.yaml holds."""
    kept = save_resolved(tree(stage, folder, *overrides))
    (folder / TRACKER).write_text("10")
    return kept.read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_kept_is_resolved(tmp_path: Path, stage: str) -> None:
    config = tree(stage, tmp_path / "a b")
    kept = save_resolved(config)
    assert kept == tmp_path / "a b/config.yaml" and "${" not in kept.read_text()
    assert OmegaConf.to_container(OmegaConf.load(kept)) == OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_with_its_own_settings(tmp_path: Path, stage: str) -> None:
    before = begun(stage, tmp_path, "trainer.total_epochs=3")
    assert save_resolved(tree(stage, tmp_path, "trainer.total_epochs=3")).read_text() == before


# By stage, what changes what is learnt: override, key, value before and after.
OTHER: dict[str, list[tuple[str, str, Any, Any]]] = {
    "sft": [
        ("optim.lr=3e-4", "optim.lr", 1e-5, 3e-4),
        ("latent.weight=0.5", "latent.weight", 0.1, 0.5),
        ("data.train_files=other.parquet", "data.train_files", None, "other.parquet"),
        ("data.train_batch_size=16", "data.train_batch_size", 128, 16),
        ("optim.betas=[0.9,0.99]", "optim.betas", [0.9, 0.95], [0.9, 0.99]),
        ("trainer.seed=7", "trainer.seed", 1, 7),
        ("+latent.extra=1", "latent.extra", None, 1),
    ],
    "rl": [
        ("actor_rollout_ref.model.path=M", "actor_rollout_ref.model.path", None, "M"),
        ("rewards.contrastive=0", "rewards.contrastive", 0.2, 0),
        ("data.seed=7", "data.seed", 1, 7),
        ("judge.model=J", "judge.model", None, "J"),
        ("actor_rollout_ref.rollout.n=4", "actor_rollout_ref.rollout.n", 8, 4),
        ("pools=colocated_async", "trainer.v1.trainer_mode", "sync", "colocate_async"),
        ("ablation=depo", "latent_loss.ratio", "shared", "decoupled"),
    ],
}


@pytest.mark.parametrize(
    ("stage", "override", "key", "old", "new"), [(stage, *case) for stage in STAGES for case in OTHER[stage]]
)
def test_other_settings_are_refused_by_name_and_nothing_is_overwritten(
    tmp_path: Path, stage: str, override: str, key: str, old: object, new: object
) -> None:
    before = begun(stage, tmp_path)
    with pytest.raises(ValueError, match="holds a run with other settings") as refused:
        save_resolved(tree(stage, tmp_path, override))
    assert f"{key}: {old!r}, now {new!r}" in str(refused.value) and str(tmp_path) in str(refused.value)
    assert (tmp_path / "config.yaml").read_text() == before


def test_settings_that_are_left_out_differ_as_well(tmp_path: Path) -> None:
    begun("sft", tmp_path, "latent.weight=0.5", "+latent.extra=1")
    with pytest.raises(ValueError, match=r"latent\.extra: 1, now None; latent\.weight: 0\.5, now 0\.1"):
        save_resolved(tree("sft", tmp_path))


def test_of_many_differences_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    begun("sft", tmp_path)
    with pytest.raises(ValueError, match=r"; \d{2,} more\)") as refused:
        save_resolved(tree("rl", tmp_path))
    assert str(refused.value).count(", now ") == SHOWN


MACHINES = ["trainer.nnodes=4", "trainer.n_gpus_per_node=2", "+ray_kwargs.ray_init.num_gpus=4"]
LONGER = ["trainer.total_epochs=9", "trainer.total_training_steps=900", "trainer.save_freq=7", "trainer.test_freq=7"]
TOLD = ["trainer.logger=[console]", "trainer.experiment_name=again", "trainer.project_name=p", "trainer.resume_mode=disable"]
FREE = {
    "sft": [
        *(*MACHINES[:2], *LONGER, *TOLD, "trainer.node_rank=1", "trainer.master_addr=head", "trainer.master_port=1"),
        *("data.num_workers=0", "data.cache_dir=frames", "data.micro_batch_size_per_gpu=1", "data.max_token_len_per_gpu=20000"),
        *("trainer.max_ckpt_to_keep=1", "engine.param_offload=true"),
    ],
    "rl": [
        *(*MACHINES, *LONGER, *TOLD, "judge.url=http://elsewhere", "judge.concurrency=8", "trainer.rollout_data_dir=seen"),
        *("actor_rollout_ref.rollout.nnodes=2", "reference_pool.nnodes=1", "actor_rollout_ref.rollout.agent.num_workers=1"),
        *("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1", "actor_rollout_ref.rollout.gpu_memory_utilization=0.3"),
    ],
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_does_not_change_what_is_learnt_may_change(tmp_path: Path, stage: str) -> None:
    before = begun(stage, tmp_path)
    kept = save_resolved(tree(stage, tmp_path, *FREE[stage]))
    assert kept.read_text() != before


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_whose_folder_was_moved_goes_on(tmp_path: Path, stage: str) -> None:
    begun(stage, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert save_resolved(tree(stage, tmp_path / "there")).is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_in_which_nothing_was_trained_may_be_begun_anew(tmp_path: Path, stage: str) -> None:
    first = save_resolved(tree(stage, tmp_path)).read_text()
    (tmp_path / "global_step_10").mkdir()  # what is left if it ended while it saved its first step
    assert save_resolved(tree(stage, tmp_path, "data.train_batch_size=2")).read_text() != first


def test_a_checkpoint_without_a_config_is_gone_on_from(tmp_path: Path) -> None:
    """As the refusal advises, for whoever wants that run's weights with other settings."""
    begun("sft", tmp_path)
    (tmp_path / "config.yaml").unlink()
    assert save_resolved(tree("sft", tmp_path, "optim.lr=1")).is_file()


@pytest.mark.parametrize(("stage", "key"), [("sft", "model.path"), ("rl", "data.train_files")])
def test_a_value_that_verl_would_read_as_a_reference_is_refused(tmp_path: Path, stage: str, key: str) -> None:
    with pytest.raises(ValueError, match=rf"{key}=a\$\{{b\}}: verl takes"):
        save_resolved(tree(stage, tmp_path, rf"{key}='a\${{b}}'"))
    assert not (tmp_path / "config.yaml").exists()
