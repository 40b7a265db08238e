"""Checks of the settings of both stages, before any worker starts."""

from importlib.util import find_spec
from typing import Annotated, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, Field, PositiveInt

from future_l1_verl.config.section import Section
from future_l1_verl.data.rows import FORMS
from future_l1_verl.data.skipped import Skipped
from future_l1_verl.modeling.attention import KERNELS


class DataSettings(Section):
    """Keys of the section ``data`` that are ours, in both trees; the others are verl's."""

    model_config = ConfigDict(extra="ignore")

    observed: Literal[FORMS]
    video_frames: PositiveInt
    max_bad_rate: Annotated[float, Field(ge=0, lt=1)]


def skipping(config: DictConfig) -> Skipped:
    """Returns the manifest of the rows that cannot be used."""
    return Skipped(config.data.manifest, config.data.max_bad_rate)


def require_batch(name: str, rows: int, batch: int) -> None:
    """Raises ValueError if there are fewer rows than a batch needs, since verl would then make no step."""
    if rows < batch:
        raise ValueError(f"{name}: {rows} usable rows, fewer than a batch: data.train_batch_size={batch}")


def require_given(config: DictConfig, *keys: str) -> None:
    """Raises ValueError naming the first key that has no value."""
    for key in keys:
        if OmegaConf.select(config, key, throw_on_missing=True) is None:
            raise ValueError(f"{key} is needed")


def files(value: str | ListConfig | None) -> list[str]:
    """Returns the files of ``data.train_files`` or ``data.val_files``: one, several or none."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def limit(max_samples: int) -> int | None:
    """Returns the most rows that verl reads of files: None, for all of them, in place of its -1."""
    return max_samples if max_samples > 0 else None


def require_effective(model: DictConfig) -> None:
    """Raises ValueError for settings of the section ``model`` that would have no effect: keys of ``override_config`` that verl
    does not read (besides ``model_config`` it reads only the attention, verl/workers/config/model.py), an attention without
    a kernel for packed questions, and unpacked rows."""
    override = model.override_config
    unknown = sorted(set(override) - {"attn_implementation", "latent", "model_config"})
    if unknown:
        raise ValueError(
            f"model.override_config.{unknown[0]} has no effect: what config.json says is changed by "
            f"model.override_config.model_config.{unknown[0]}, the section latent by latent.*"
        )
    if override.attn_implementation not in KERNELS:
        known = ", ".join(KERNELS)
        raise ValueError(f"model.override_config.attn_implementation is one of {known}, not {override.attn_implementation!r}")
    if override.attn_implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ValueError(
            "model.override_config.attn_implementation=flash_attention_2 needs flash-attn, which is not installed "
            "(`bash recipes/env.sh cuda` says why): sdpa serves every model"
        )
    if not model.use_remove_padding:
        raise ValueError("model.use_remove_padding must be true: questions are always packed (modeling/packing.py)")
