"""Finds input of stage 2 that cannot work, before any worker starts."""

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf
from transformers import AutoProcessor
from verl.trainer.ppo.utils import need_reference_policy

from future_l1_verl.data.rows import RowError, refuse
from future_l1_verl.modeling.checkpoint import check_checkpoint, require_videos
from future_l1_verl.modeling.trained_as import AS_TRAINED, TrainedAs, differences
from future_l1_verl.rewards.judge.settings import read_prompt
from future_l1_verl.rl.askable import askable
from future_l1_verl.rl.settings import (
    AdvantageSettings,
    GroupFilter,
    LatentLoss,
    LatentRollout,
    ParitySettings,
    ReferencePool,
    RewardSettings,
    judge_settings,
)
from future_l1_verl.training.checks import DataSettings, files, limit, require_batch, require_effective, require_given, skipping

# Settings of verl that would break the likelihood of latents: their required values, and the reasons.
REQUIRED: dict[str, tuple[Any, str]] = {
    "trainer.v1.sampler.custom_sampler.path": (None, "the replay buffer ends the run when a rollout fails"),
    "algorithm.adv_estimator": ("la_dapo", "the trainer computes advantages of reward parts (rl/advantage.py)"),
    "actor_rollout_ref.actor.policy_loss.loss_mode": ("la_dapo", "the trainer has its own loss (rl/loss.py)"),
    "actor_rollout_ref.model.model_type": ("latent_language_model", "no other engine injects latents"),
    "reward.custom_reward_function.path": (None, "rewards are given in the agent loop; see the section rewards"),
    "reward.reward_model.enable": (False, "rewards are given in the agent loop; see the sections rewards and judge"),
    "algorithm.filter_groups.metric": ("acc", "groups are kept by accuracy alone, whatever else is rewarded"),
    "actor_rollout_ref.rollout.calculate_log_probs": (True, "parity is measured at every step"),
    "actor_rollout_ref.rollout.router_config_path": (None, "the answers to a prompt are routed by its name (rl/client.py)"),
    "actor_rollout_ref.model.use_fused_kernels": (False, "they do not return the hidden states that latents are scored by"),
    "actor_rollout_ref.actor.shuffle": (False, "the answers to a question stay together (training/balancing.py)"),
    "algorithm.use_kl_in_reward": (False, "it takes the density of a latent for a token's log-prob"),
    "algorithm.rollout_correction.bypass_mode": (False, "the rollout's log-probs do not hold the density of latents"),
    "algorithm.rollout_correction.rollout_is": (None, "the rollout's log-probs do not hold the density of latents"),
    "algorithm.rollout_correction.rollout_rs": (None, "the rollout's log-probs do not hold the density of latents"),
}


DTYPES = ("bfloat16", "float16", "float32")  # the names that vLLM and verl share
MODES = ("sync", "colocate_async", "separate_async")


_SECTIONS = {
    "latent": LatentRollout,
    "latent_loss": LatentLoss,
    "reference_pool": ReferencePool,
    "rewards": RewardSettings,
    "advantage": AdvantageSettings,
    "group_filter": GroupFilter,
    "parity": ParitySettings,
    "data": DataSettings,
}


def take_as_trained(config: DictConfig) -> None:
    """Replaces ``as_trained`` in the tree by the checkpoint's own settings, and prints other settings that differ from them.

    Raises ValueError without a checkpoint that stage 2 can use, FileNotFoundError if it has no config.json.
    """
    require_given(config, "actor_rollout_ref.model.path")
    check_checkpoint(config.actor_rollout_ref.model.path)
    trained = TrainedAs.from_checkpoint(config.actor_rollout_ref.model.path, text_only=config.rewards.shape == "text_only")
    for name in ("system_prompt", "observed"):
        if config.data[name] == AS_TRAINED:
            config.data[name] = getattr(trained, name)
    used = {"system_prompt": config.data.system_prompt, "observed": config.data.observed}
    for sentence in differences(trained, used):
        print(f"data.{sentence}")


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data) or FileNotFoundError, naming what is wrong."""
    require_given(config, "actor_rollout_ref.model.path", "data.train_files", "data.val_files")
    for key, (value, reason) in REQUIRED.items():
        if (given := OmegaConf.select(config, key)) != value:
            raise ValueError(f"{key} must be {value}, not {given}: {reason}")
    if config.actor_rollout_ref.rollout.n < 2:
        raise ValueError("actor_rollout_ref.rollout.n must be at least 2: an advantage is a comparison within a group")
    if (dtype := config.actor_rollout_ref.rollout.dtype) not in DTYPES:
        raise ValueError(f"actor_rollout_ref.rollout.dtype is one of {', '.join(DTYPES)}, not {dtype}: pixels are stored in it")
    require_effective(config.actor_rollout_ref.model)
    _check_sections(config)
    _check_pools(config)
    _check_devices(config)
    _check_latents(config)
    _check_rows(config)


def _check_pools(config: DictConfig) -> None:
    mode, separate = config.trainer.v1.trainer_mode, config.trainer.v1.trainer_mode == "separate_async"
    if mode not in MODES:
        raise ValueError(f"trainer.v1.trainer_mode is one of {', '.join(MODES)}, not {mode!r}")
    hybrid = config.actor_rollout_ref.hybrid_engine
    if not (separate or hybrid):
        raise ValueError(f"actor_rollout_ref.hybrid_engine=false needs pools=separate, not trainer.v1.trainer_mode={mode}")
    model, pool = config.actor_rollout_ref.model, config.reference_pool
    adapters = model.lora.rank or model.lora_rank or model.lora_adapter_path
    if pool.nnodes and (hybrid or not separate):
        raise ValueError("reference_pool needs pools=separate, and actor_rollout_ref.hybrid_engine=false")
    if pool.nnodes and (adapters or not need_reference_policy(config)):
        raise ValueError("reference_pool needs a reference: with LoRA it is the actor, without a KL there is none")
    if not separate:
        return
    if config.actor_rollout_ref.actor.strategy != "fsdp2":
        raise ValueError(
            "pools=separate keeps weights on the host as fsdp2 shards them: actor_rollout_ref.actor.strategy=fsdp2"
        )
    if adapters and not model.lora.merge:
        raise ValueError(
            "pools=separate sends a rollout no adapters (engine_workers.py): actor_rollout_ref.model.lora.merge=true"
        )
    steps, mini = config.trainer.v1.separate_async.parameter_sync_step, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if config.data.train_batch_size != steps * mini:
        raise ValueError(
            f"data.train_batch_size must be trainer.v1.separate_async.parameter_sync_step * "
            f"actor_rollout_ref.actor.ppo_mini_batch_size = {steps} * {mini}, not {config.data.train_batch_size}"
        )


def devices(config: DictConfig) -> int:
    """Returns the number of devices of all pools together."""
    return sum(_world(pool) for pool in _pools(config).values())


def _pools(config: DictConfig) -> dict[str, DictConfig]:
    """Returns, by name, the sections with the numbers of nodes and of devices per node of each pool."""
    rollout, reference = config.actor_rollout_ref.rollout, config.reference_pool
    separate = {"actor_rollout_ref.rollout": rollout} if config.trainer.v1.trainer_mode == "separate_async" else {}
    return {"trainer": config.trainer} | separate | ({"reference_pool": reference} if reference.nnodes else {})


def _world(pool: DictConfig) -> int:
    return pool.nnodes * pool.n_gpus_per_node


def _check_devices(config: DictConfig) -> None:
    """Raises ValueError for pools that cannot be divided as configured; upstream checks this in a worker, if at all."""
    rollout, pools = config.actor_rollout_ref.rollout, _pools(config)
    parts = {
        name: rollout[name] for name in ("tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size")
    }
    name = "actor_rollout_ref.rollout" if "actor_rollout_ref.rollout" in pools else "trainer"
    world = _world(pools[name])
    if world % math.prod(parts.values()):
        said = " * ".join(f"{part}={size}" for part, size in parts.items() if size != 1)
        raise ValueError(f"{name}.nnodes * n_gpus_per_node = {world} cannot be divided by actor_rollout_ref.rollout.{said}")
    sequence, actors = config.actor_rollout_ref.actor.ulysses_sequence_parallel_size, _world(config.trainer)
    if actors % sequence:
        raise ValueError(
            f"trainer.nnodes * n_gpus_per_node = {actors} cannot be divided by "
            f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={sequence}"
        )
    rows, ranks = config.actor_rollout_ref.actor.ppo_mini_batch_size * rollout.n, actors // sequence
    if rows % ranks:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size * rollout.n = {rows} answers cannot be divided among {ranks} actors"
        )


def _check_sections(config: DictConfig) -> None:
    for name, section in _SECTIONS.items():
        section.read(config, name)
    if (judge := judge_settings(config)) is not None:
        read_prompt(judge.prompt)
    if config.data.observed == "video":
        require_videos(config.actor_rollout_ref.model.path)


def _check_latents(config: DictConfig) -> None:
    latent, budget = config.latent, check_checkpoint(config.actor_rollout_ref.model.path).max_latents
    if latent.min_latents > budget:
        raise ValueError(f"latent.min_latents must lie in 1..{budget} (the checkpoint's budget), not {latent.min_latents}")
    if latent.likelihood == "gaussian":
        _check_gaussian(config)
    loss = config.latent_loss
    if latent.likelihood == "none" and (loss.ratio == "decoupled" or loss.kl_coef > 0):
        raise ValueError("latent.likelihood=none leaves nothing to decouple: latent_loss.ratio=shared, latent_loss.kl_coef=0")
    if loss.kl_coef > 0 and not config.actor_rollout_ref.actor.use_kl_loss:
        raise ValueError("latent_loss.kl_coef > 0 needs a reference: actor_rollout_ref.actor.use_kl_loss=true")
    text_only = config.rewards.shape == "text_only"
    if latent.spans == text_only:
        raise ValueError(f"latent.spans={latent.spans} does not go with rewards.shape={config.rewards.shape}")


def _check_gaussian(config: DictConfig) -> None:
    """Raises ValueError in half precision unless a batch is one update. In another micro-batch the last bits of a hidden state
    differ, and the gaussian density, a sum over dimensions, by 0.02 nats in the mean and up to 0.6 at H = 128, more at larger
    H. Vmf, which uses unit vectors, is not affected (docs/precision.md)."""
    actor = config.actor_rollout_ref.actor
    if (actor.fsdp_config.mixed_precision or {}).get("param_dtype", "bf16") in ("fp32", "float32"):
        return
    steps = config.trainer.v1.separate_async.parameter_sync_step if config.trainer.v1.trainer_mode == "separate_async" else 1
    if actor.ppo_epochs != 1 or config.data.train_batch_size != actor.ppo_mini_batch_size or steps != 1:
        raise ValueError(
            "latent.likelihood=gaussian in half precision needs a batch that is one update (actor.ppo_epochs=1 and "
            "actor.ppo_mini_batch_size=data.train_batch_size): between two passes rounding alone moves its ratios beyond the "
            "clip range; or set actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32, or latent.likelihood=vmf"
        )


def _check_rows(config: DictConfig) -> None:
    processor = AutoProcessor.from_pretrained(config.actor_rollout_ref.model.path)
    problems = []
    for name, batch in (("train", config.data.train_batch_size), ("val", 1)):
        most = limit(config.data[f"{name}_max_samples"])
        try:
            rows = askable(files(config.data[f"{name}_files"]), config.data, processor, skipping(config), most)
            require_batch(f"data.{name}_files", len(rows), batch)
        except RowError as error:
            problems.append(str(error))
    refuse(problems)
