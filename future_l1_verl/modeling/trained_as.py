"""How a checkpoint was trained, as its ``config.json`` says: what evaluation, serving and stage 2 ask it by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

AS_TRAINED = "as_trained"  # of a setting: what the checkpoint says
PREFIX = "trained_"  # of the keys in config.json; both config trees write them (model.override_config)


@dataclass(frozen=True)
class TrainedAs:
    """``system_prompt``: None for none. ``observed``: frames or video. ``shape``: of an answer (rewards/format.py). ``said``:
    whether the checkpoint says so itself."""

    system_prompt: str | None
    observed: str
    shape: str
    said: bool = True

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path, text_only: bool = False) -> TrainedAs:
        """Returns what a checkpoint says; for one that says nothing our wording, for frames. Raises FileNotFoundError."""
        config = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
        if f"{PREFIX}shape" in config:
            return cls(*(config.get(PREFIX + name) for name in ("system_prompt", "observed", "shape")))
        return cls(default_prompt(text_only), "frames", "text_only" if text_only else "interleaved", said=False)

    @property
    def text_only(self) -> bool:
        return self.shape == "text_only"


def default_prompt(text_only: bool) -> str:
    """Returns the system prompt of a model that thinks in spans, or of the text-only control."""
    texts = yaml.safe_load((resources.files("future_l1_verl") / "config/system_prompts.yaml").read_text(encoding="utf-8"))
    return texts["text_only" if text_only else "spans"]


def differences(trained: TrainedAs, used: dict[str, str | None]) -> list[str]:
    """A sentence for each setting (a field of `TrainedAs`) that is not what the checkpoint says it was trained with."""
    if not trained.said:
        return []
    pairs = ((name, getattr(trained, name), value) for name, value in used.items())
    return [
        f"{name} is {value!r}, but the checkpoint was trained with {then!r}" for name, then, value in pairs if then != value
    ]
