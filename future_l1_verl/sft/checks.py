"""Input of stage 1 that cannot work, found before any worker starts."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf

from data_prep.reading import SFT_COLUMNS, check_clips, read_rows
from future_l1_verl.latents.tokens import LatentSettings


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data), FileNotFoundError or MissingMandatoryValue, naming what is wrong."""
    for key in ("model.path", "data.train_files"):
        OmegaConf.select(config, key, throw_on_missing=True)
    if not 0 <= config.latent.weight < float("inf"):
        raise ValueError(f"latent.weight (lambda) must be a number of at least 0, not {config.latent.weight}")
    LatentSettings.from_checkpoint(config.model.path)
    for file in [*_files(config.data.train_files), *_files(config.data.val_files)]:
        check_clips(read_rows(file, SFT_COLUMNS))


def _files(value: str | ListConfig | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
