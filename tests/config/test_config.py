"""The paper's values (paper.md sections 2 and 4) as the defaults of both config trees."""

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def tree(stage: str) -> DictConfig:
    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        return compose("main")


def test_stage_1_has_the_papers_values() -> None:
    config = tree("sft")
    assert config.latent.weight == 0.1
    assert (config.optim.lr, list(config.optim.betas), config.optim.weight_decay) == (1e-5, [0.9, 0.95], 0.1)
    assert (config.optim.clip_grad, config.optim.lr_scheduler_type, config.optim.lr_warmup_steps_ratio) == (1.0, "cosine", 0.1)
    assert (config.data.train_batch_size, config.data.max_length, config.trainer.total_epochs) == (128, 16384, 1)
    assert config.model.override_config.freeze_vision


def test_stage_2_has_the_papers_values() -> None:
    config = tree("rl")
    rewards = config.rewards
    assert (rewards.accuracy, rewards.format, rewards.contrastive, rewards.diversity) == (0.9, 0.1, 0.2, 0.1)
    assert rewards.temperature == 0.5
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 3.0)
    assert (actor.loss_agg_mode, actor.use_kl_loss, actor.kl_loss_coef) == ("token-mean", True, 0.01)
    assert (rollout.n, rollout.temperature) == (8, 0.9)
    assert (config.data.train_batch_size, config.data.max_prompt_length, config.data.max_response_length) == (64, 8192, 2048)


def test_both_stages_say_the_same_before_a_question() -> None:
    assert tree("sft").data.system_prompt == tree("rl").data.system_prompt
