"""Input of stage 2 that cannot work, found before any worker starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_prep.rows import RL_COLUMNS, Row, RowError, check_frames, read_rows
from future_l1_verl.latents.likelihood import density
from future_l1_verl.rewards.answer import chosen_option
from future_l1_verl.rewards.total import Weights
from future_l1_verl.sft.checks import check_checkpoint, files, require_known_keys

# Settings of verl that the likelihood of latents does not survive: what they must be, and why.
REQUIRED: dict[str, tuple[Any, str]] = {
    "trainer.v1.trainer_mode": ("sync", "the other modes do not carry latents yet"),
    "trainer.v1.sampler.custom_sampler.path": (None, "the replay buffer ends the run when a rollout fails"),
    "actor_rollout_ref.rollout.top_p": (
        1.0,
        "vLLM scores tokens in the truncated distribution, the actor in the whole one",
    ),
    "actor_rollout_ref.rollout.top_k": (-1, "vLLM scores tokens in the truncated distribution, the actor in the whole one"),
    "actor_rollout_ref.rollout.calculate_log_probs": (True, "parity is measured at every step"),
    "actor_rollout_ref.model.use_fused_kernels": (False, "they do not return the hidden states that latents are scored by"),
    "algorithm.use_kl_in_reward": (False, "it takes the density of a latent for a token's log-prob"),
    "algorithm.rollout_correction.bypass_mode": (False, "the rollout's log-probs do not hold the density of latents"),
    "algorithm.rollout_correction.rollout_is": (None, "the rollout's log-probs do not hold the density of latents"),
    "algorithm.rollout_correction.rollout_rs": (None, "the rollout's log-probs do not hold the density of latents"),
}


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data), FileNotFoundError or MissingMandatoryValue, naming what is wrong."""
    for key in ("actor_rollout_ref.model.path", "data.train_files", "data.val_files"):
        OmegaConf.select(config, key, throw_on_missing=True)
    for key, (value, reason) in REQUIRED.items():
        if (given := OmegaConf.select(config, key)) != value:
            raise ValueError(f"{key} must be {value}, not {given}: {reason}")
    _check_rewards(config)
    _check_latents(config)
    for file in [*files(config.data.train_files), *files(config.data.val_files)]:
        rows = read_rows(file, RL_COLUMNS)
        _check_answers(rows)
        check_frames(rows, {"image": lambda row: row["problem"]})


def _check_latents(config: DictConfig) -> None:
    latent, budget = config.latent, check_checkpoint(config.actor_rollout_ref.model.path).max_latents
    require_known_keys(config, "latent", {"likelihood", "kappa", "sigma", "min_latents"})
    if latent.min_latents not in range(1, budget + 1):
        raise ValueError(f"latent.min_latents must lie in 1..{budget} (the checkpoint's budget), not {latent.min_latents}")
    if not 0 <= latent.sigma < math.inf:
        raise ValueError(f"latent.sigma must be at least 0, not {latent.sigma}")
    if (latent.likelihood == "gaussian") != (latent.sigma > 0):
        raise ValueError("latent.likelihood=gaussian and latent.sigma > 0 need each other")
    density(latent.likelihood, latent.kappa, latent.sigma)


def _check_rewards(config: DictConfig) -> None:
    require_known_keys(config, "rewards", {field.name for field in fields(Weights)})
    for name, value in config.rewards.items():
        if not 0 <= value < math.inf or (name == "temperature" and value == 0):
            raise ValueError(f"rewards.{name} must be {'positive' if name == 'temperature' else 'at least 0'}, not {value}")


def _check_answers(rows: Sequence[Row]) -> None:
    for row in rows:
        options = row.get("options") or ()
        if options and chosen_option(row["answer"], options) is None:
            raise RowError(f"{row['source']}: answer: {row['answer']!r} is not among the options {list(options)}")
