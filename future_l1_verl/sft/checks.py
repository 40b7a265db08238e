"""Finds input of stage 1 that cannot work, before any worker starts."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from future_l1_verl.data.reader import read, total
from future_l1_verl.data.rows import FORMS, Clip, Row
from future_l1_verl.latents.errors import ERRORS
from future_l1_verl.modeling.checkpoint import check_checkpoint, require_videos
from future_l1_verl.training.checks import (
    files,
    limit,
    require_a_batch,
    require_effective,
    require_given,
    require_known_keys,
    skipping,
)

TARGETS = ("resize", "pool")
SECTION = {"weight", "error", "targets", "unit_targets", "supervise_decisions", "freeze_tower", "freeze_merger"}


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data) or FileNotFoundError, naming what is wrong."""
    require_given(config, "model.path", "data.train_files")
    require_known_keys(config, "latent", SECTION)
    require_effective(config.model)
    if not 0 <= config.latent.weight < float("inf"):
        raise ValueError(f"latent.weight (lambda) must be a number of at least 0, not {config.latent.weight}")
    for key, allowed in (("latent.error", ERRORS), ("data.observed", FORMS), ("latent.targets", TARGETS)):
        if (given := OmegaConf.select(config, key)) not in allowed:
            raise ValueError(f"{key} is one of {', '.join(allowed)}, not {given!r}")
    check_checkpoint(config.model.path)
    clips = False
    for name, batch in (("train", config.data.train_batch_size), ("val", 1)):
        if given := files(config.data[f"{name}_files"]):
            most, skipped = limit(config.data[f"{name}_max_samples"]), skipping(config)
            rows = skipped.usable(read(given, config.data.videos, most, require=Row.require_response), total(given, most))
            require_a_batch(f"data.{name}_files", len(rows), batch)
            clips = clips or any(isinstance(item, Clip) for row in rows for item in row.observed)
    if config.data.observed == "video" or clips:
        require_videos(config.model.path)
