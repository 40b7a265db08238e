"""Finds input of stage 1 that cannot work, before any worker starts."""

from typing import Literal

from omegaconf import DictConfig
from pydantic import NonNegativeFloat

from future_l1_verl.config.section import Section
from future_l1_verl.data.reader import read, total
from future_l1_verl.data.rows import Clip, Row
from future_l1_verl.latents.errors import ERRORS
from future_l1_verl.modeling.checkpoint import check_checkpoint, require_videos
from future_l1_verl.training.checks import DataSettings, files, limit, require_batch, require_effective, require_given, skipping


class TaughtLatents(Section):
    """The section ``latent``: ``weight`` is the lambda of the latent loss; see config/sft/main.yaml for the others."""

    weight: NonNegativeFloat
    error: Literal[*ERRORS]
    targets: Literal["resize", "pool"]
    unit_targets: bool
    supervise_decisions: bool
    freeze_tower: bool
    freeze_merger: bool


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data) or FileNotFoundError, naming what is wrong."""
    require_given(config, "model.path", "data.train_files")
    TaughtLatents.read(config, "latent")
    DataSettings.read(config, "data")
    require_effective(config.model)
    check_checkpoint(config.model.path)
    clips = False
    for name, batch in (("train", config.data.train_batch_size), ("val", 1)):
        if given := files(config.data[f"{name}_files"]):
            most, skipped = limit(config.data[f"{name}_max_samples"]), skipping(config)
            rows = skipped.usable(read(given, config.data.videos, most, require=Row.require_response), total(given, most))
            require_batch(f"data.{name}_files", len(rows), batch)
            clips = clips or any(isinstance(item, Clip) for row in rows for item in row.observed)
    if config.data.observed == "video" or clips:
        require_videos(config.model.path)
