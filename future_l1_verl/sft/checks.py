"""Input of stage 1 that cannot work, found before any worker starts."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from transformers import AutoTokenizer

from data_prep.rows import SFT_COLUMNS, check_frames, read_rows, turn
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data), FileNotFoundError or MissingMandatoryValue, naming what is wrong."""
    for key in ("model.path", "data.train_files"):
        OmegaConf.select(config, key, throw_on_missing=True)
    require_known_keys(config, "latent", {"weight", "supervise_decisions"})
    if not 0 <= config.latent.weight < float("inf"):
        raise ValueError(f"latent.weight (lambda) must be a number of at least 0, not {config.latent.weight}")
    check_checkpoint(config.model.path)
    texts = {"image": lambda row: turn(row, "human"), "reasoning_image": lambda row: turn(row, "gpt")}
    for file in [*files(config.data.train_files), *files(config.data.val_files)]:
        check_frames(read_rows(file, SFT_COLUMNS), texts)


def check_checkpoint(directory: str | Path) -> LatentSettings:
    """The latent settings of a checkpoint. Raises ValueError or FileNotFoundError if config and tokenizer do not carry them."""
    settings = LatentSettings.from_checkpoint(directory)
    tokens = LatentTokens.from_tokenizer(AutoTokenizer.from_pretrained(directory))
    if tokens != settings.tokens:
        raise ValueError(f"{directory}: config.json has {settings.tokens}, the tokenizer {tokens}")
    return settings


def require_known_keys(config: DictConfig, section: str, known: set[str]) -> None:
    """Hydra refuses an unknown key, unless it was added with a plus sign."""
    unknown = sorted(set(config[section]) - known)
    if unknown:
        raise ValueError(f"{section}.{unknown[0]} does not exist; there are {', '.join(sorted(known))}")


def files(value: str | ListConfig | None) -> list[str]:
    """The files of ``data.train_files`` or ``data.val_files``: one, several or none."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)
