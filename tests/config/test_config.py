"""The paper's values (paper sections 2 and 4) as the defaults of both config trees, and its ablations."""

from dataclasses import asdict
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from future_l1_verl.modeling.trained_as import AS_TRAINED, default_prompt
from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.weights import Weights
from future_l1_verl.rl.settings import RewardSettings

# Paper, Table 9, and section 4: what stage 2 is, resolved.
TABLE_9: dict[str, Any] = {
    "rewards.accuracy": 0.9, "rewards.format": 0.1, "rewards.contrastive": 0.2, "rewards.diversity": 0.1,
    "rewards.repetition": 0.0, "rewards.overlong": 0.0, "rewards.temperature": 0.5, "rewards.shape": "interleaved",
    "latent.spans": True, "latent.likelihood": "vmf", "latent.kappa": 0.01, "latent_loss.ratio": "shared",
    "advantage.normalise": "sum", "advantage.latent_parts": "all",
    "algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "acc",
    "group_filter.low": 0.1, "group_filter.high": 0.9, "parity.most_at_first": 0.5,
    "actor_rollout_ref.actor.policy_loss.loss_mode": "la_dapo", "algorithm.adv_estimator": "la_dapo",
    "actor_rollout_ref.actor.clip_ratio_low": 0.2, "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.clip_ratio_c": 3.0, "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.use_kl_loss": True, "actor_rollout_ref.actor.kl_loss_coef": 0.01,
    "actor_rollout_ref.rollout.n": 8, "actor_rollout_ref.rollout.temperature": 0.9, "actor_rollout_ref.rollout.top_p": 0.99,
    "data.train_batch_size": 64, "data.max_prompt_length": 8192, "data.max_response_length": 2048, "trainer.total_epochs": 1,
}  # fmt: skip

WITHOUT_LATENT_REWARDS = {"rewards.contrastive": 0.0, "rewards.diversity": 0.0}
GRPO = WITHOUT_LATENT_REWARDS | {
    "actor_rollout_ref.actor.clip_ratio_high": 0.2, "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean",
    "algorithm.filter_groups.enable": False,
}  # fmt: skip
TEXT_ONLY = {"latent.spans": False, "latent.likelihood": "none", "rewards.shape": "text_only"}

# What each ablation changes of Table 9.
ABLATIONS: dict[str, dict[str, Any]] = {
    "la_dapo": {},
    "dapo": WITHOUT_LATENT_REWARDS,
    "dapo+ctr": {"rewards.diversity": 0.0},
    "dapo+div": {"rewards.contrastive": 0.0},
    "depo": WITHOUT_LATENT_REWARDS | {"latent_loss.ratio": "decoupled"},
    "grpo": GRPO,
    "text_only_dapo": WITHOUT_LATENT_REWARDS | TEXT_ONLY,
    "text_only_grpo": GRPO | TEXT_ONLY,
}


def tree(stage: str, *overrides: str) -> DictConfig:
    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        return compose("main", overrides=list(overrides))


def test_stage_1_has_the_papers_values() -> None:
    config = tree("sft")
    assert config.latent.weight == 0.1
    assert (config.optim.lr, list(config.optim.betas), config.optim.weight_decay) == (1e-5, [0.9, 0.95], 0.1)
    assert (config.optim.clip_grad, config.optim.lr_scheduler_type, config.optim.lr_warmup_steps_ratio) == (1.0, "cosine", 0.1)
    assert (config.data.train_batch_size, config.data.max_length, config.trainer.total_epochs) == (128, 16384, 1)
    assert config.latent.freeze_tower and config.latent.freeze_merger


def test_stage_2_is_la_dapo_unless_told_otherwise() -> None:
    assert tree("rl") == tree("rl", "ablation=la_dapo")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_table_9_with_its_own_changes_and_no_other(name: str) -> None:
    """docs/differences.md, row 20: there explicit zeros in one file beat the documented values."""
    config = tree("rl", f"ablation={name}")
    assert {key: OmegaConf.select(config, key) for key in TABLE_9} == TABLE_9 | ABLATIONS[name]
    assert config.trainer.experiment_name == name
    RewardSettings.read(config, "rewards")


def test_depo_has_the_papers_latent_clip_weight_and_kl() -> None:
    loss = tree("rl", "ablation=depo").latent_loss
    assert (loss.clip_low, loss.clip_high, loss.weight, loss.kl_coef) == (0.1, 0.1, 0.5, 0.01)


def test_a_weight_on_the_command_line_is_the_weight() -> None:
    """Row 20: there lambda_d cannot be reached."""
    config = tree("rl", "ablation=dapo", "rewards.diversity=0.5")
    assert RewardSettings.read(config, "rewards").weights.diversity == 0.5


def test_the_tree_and_the_classes_that_are_used_without_it_have_the_same_defaults() -> None:
    config = tree("rl")
    assert {name: config.rewards[name] for name in asdict(Weights())} == asdict(Weights())
    judge = asdict(JudgeSettings(url="http://judge", model="m"))
    assert dict(config.judge) == judge | {"url": None, "model": None}


def test_stage_2_asks_as_stage_1_trained() -> None:
    """Both trees write into the checkpoint how it is trained; what one says nothing of is asked in stage 1's words."""
    sft, rl = tree("sft"), tree("rl")
    assert (rl.data.system_prompt, rl.data.observed) == (AS_TRAINED, AS_TRAINED)
    assert (
        sft.model.override_config.model_config.trained_system_prompt
        == sft.data.system_prompt
        == default_prompt(text_only=False)
    )
    assert sft.model.override_config.model_config.trained_observed == sft.data.observed == "frames"
    assert rl.actor_rollout_ref.model.override_config.model_config.trained_shape == rl.rewards.shape
