"""Input of stage 1 that cannot work, found before any worker starts."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from transformers import AutoProcessor

from future_l1_verl.data.prompts import FORMS
from future_l1_verl.data.reader import read, total
from future_l1_verl.data.rows import Clip, Row
from future_l1_verl.data.skipped import Skipped
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.sft.objective import ERRORS


def check(config: DictConfig) -> None:
    """Raises ValueError (RowError for data) or FileNotFoundError, naming what is wrong."""
    require_given(config, "model.path", "data.train_files")
    require_known_keys(config, "latent", {"weight", "error", "unit_targets", "supervise_decisions"})
    if not 0 <= config.latent.weight < float("inf"):
        raise ValueError(f"latent.weight (lambda) must be a number of at least 0, not {config.latent.weight}")
    for key, allowed in (("latent.error", ERRORS), ("data.observed", FORMS), ("data.latents", ("resize", "pool"))):
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


def skipping(config: DictConfig) -> Skipped:
    """What lists the rows of a file that cannot be used. Raises ValueError for a share of them that is none."""
    if not 0 <= config.data.max_bad_rate < 1:
        raise ValueError(f"data.max_bad_rate must lie in [0, 1), not {config.data.max_bad_rate}")
    return Skipped(config.data.manifest, config.data.max_bad_rate)


def require_a_batch(name: str, rows: int, batch: int) -> None:
    """Raises ValueError if there are fewer rows than a batch has, of which verl makes no step."""
    if rows < batch:
        raise ValueError(f"{name}: {rows} usable rows, fewer than a batch: data.train_batch_size={batch}")


def check_checkpoint(directory: str | Path) -> LatentSettings:
    """The latent settings of a checkpoint. Raises ValueError or OSError if its config or processor is missing or lacks them."""
    settings = LatentSettings.from_checkpoint(directory)
    tokens = LatentTokens.from_tokenizer(AutoProcessor.from_pretrained(directory).tokenizer)
    if tokens != settings.tokens:
        raise ValueError(f"{directory}: config.json has {settings.tokens}, the tokenizer {tokens}")
    return settings


def require_given(config: DictConfig, *keys: str) -> None:
    """Raises ValueError naming the first key that has no value."""
    for key in keys:
        if OmegaConf.select(config, key, throw_on_missing=True) is None:
            raise ValueError(f"{key} is needed")


def require_videos(directory: str | Path) -> None:
    """Raises ValueError for a checkpoint whose engines do not agree on the times of a video's frames."""
    kind = json.loads((Path(directory) / "config.json").read_text())["model_type"]
    if kind == "qwen2_5_vl":
        raise ValueError("Qwen2.5-VL: vLLM and transformers disagree on the times of videos; use data.observed=frames")


def require_known_keys(config: DictConfig, section: str, known: set[str]) -> None:
    """Hydra refuses an unknown key, unless it was added with a plus sign."""
    unknown = sorted(set(config[section]) - known)
    if unknown:
        raise ValueError(f"{section}.{unknown[0]} does not exist; there are {', '.join(sorted(known))}")


def files(value: str | ListConfig | None) -> list[str]:
    """The files of ``data.train_files`` or ``data.val_files``: one, several or none."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def limit(max_samples: int) -> int | None:
    """How many rows verl wants of files at most: None for its -1, all of them."""
    return max_samples if max_samples > 0 else None
