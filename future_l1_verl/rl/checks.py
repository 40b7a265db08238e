"""Input of stage 2 that cannot work, found before any worker starts."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, ListConfig, OmegaConf

from data_prep.reading import RL_COLUMNS, Row, RowError, check_clips, read_rows
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.answer import chosen_option
from future_l1_verl.rewards.total import Weights


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data), FileNotFoundError or MissingMandatoryValue, naming what is wrong."""
    for key in ("actor_rollout_ref.model.path", "data.train_files", "data.val_files"):
        OmegaConf.select(config, key, throw_on_missing=True)
    budget = LatentSettings.from_checkpoint(config.actor_rollout_ref.model.path).max_latents
    if not 1 <= config.latent.min_latents <= budget:
        raise ValueError(
            f"latent.min_latents must lie in 1..{budget} (the checkpoint's budget), not {config.latent.min_latents}"
        )
    if config.latent.sigma < 0:
        raise ValueError(f"latent.sigma must not be negative, it is {config.latent.sigma}")
    if (config.latent.likelihood == "gaussian") != (config.latent.sigma > 0):
        raise ValueError("latent.likelihood=gaussian and latent.sigma > 0 need each other")
    if config.trainer.v1.trainer_mode != "sync":
        raise ValueError(f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} is not supported yet; use sync")
    for name, value in config.rewards.items():
        if value < 0 or (name == "temperature" and value == 0):
            raise ValueError(f"rewards.{name} must be {'positive' if name == 'temperature' else 'at least 0'}, not {value}")
    Weights(**config.rewards)
    for value in (config.data.train_files, config.data.val_files):
        for file in list(value) if isinstance(value, ListConfig) else [value]:
            rows = read_rows(file, RL_COLUMNS)
            _check_answers(rows)
            check_clips(rows)


def _check_answers(rows: Sequence[Row]) -> None:
    for row in rows:
        options = row.get("options") or ()
        if options and chosen_option(row["answer"], options) is None:
            raise RowError(f"{row['source']}: answer: {row['answer']!r} is not among the options {list(options)}")
