"""The prompt settings of a checkpoint's training, in its ``config.json``; evaluation, serving and stage 2 use them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

AS_TRAINED = "as_trained"  # a value of a setting: the same as in the checkpoint
PREFIX = "trained_"  # of the keys in config.json; both config trees write them (model.override_config)


@dataclass(frozen=True)
class TrainedAs:
    """``system_prompt``: None if there is none. ``observed``: frames or video. ``shape``: of an answer (rewards/shape.py).
    ``said``: whether the settings are from the checkpoint."""

    system_prompt: str | None
    observed: str
    shape: str
    said: bool = True

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path, text_only: bool = False) -> TrainedAs:
        """Returns a checkpoint's settings, or, if it has none, our prompt for frames. Raises FileNotFoundError."""
        config = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
        if f"{PREFIX}shape" in config:
            return cls(*(config.get(PREFIX + name) for name in ("system_prompt", "observed", "shape")))
        return cls(default_prompt(text_only), "frames", "text_only" if text_only else "interleaved", said=False)

    @property
    def text_only(self) -> bool:
        return self.shape == "text_only"


def default_prompt(text_only: bool) -> str:
    """Returns the system prompt of a model with spans, or of the text-only control."""
    texts = yaml.safe_load((resources.files("future_l1_verl") / "config/system_prompts.yaml").read_text(encoding="utf-8"))
    return texts["text_only" if text_only else "spans"]


def differences(trained: TrainedAs, used: dict[str, str | None]) -> list[str]:
    """Returns a sentence for each setting (a field of `TrainedAs`) that differs from the checkpoint's training."""
    if not trained.said:
        return []
    pairs = ((name, getattr(trained, name), value) for name, value in used.items())
    return [
        f"{name} is {value!r}, but the checkpoint was trained with {then!r}" for name, then, value in pairs if then != value
    ]
