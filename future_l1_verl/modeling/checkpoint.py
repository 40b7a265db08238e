"""Checks a checkpoint before it is used."""

import json
from pathlib import Path

from transformers import AutoProcessor

from future_l1_verl.latents.tokens import LatentSettings, LatentTokens


def check_checkpoint(directory: str | Path) -> LatentSettings:
    """Returns the latent settings of a checkpoint. Raises ValueError or OSError if its config or processor lacks them."""
    settings = LatentSettings.from_checkpoint(directory)
    tokens = LatentTokens.from_tokenizer(AutoProcessor.from_pretrained(directory).tokenizer)
    if tokens != settings.tokens:
        raise ValueError(f"{directory}: config.json has {settings.tokens}, the tokenizer {tokens}")
    return settings


def require_videos(directory: str | Path) -> None:
    """Raises ValueError for a checkpoint for which transformers and vLLM disagree on the times of a video's frames."""
    kind = json.loads((Path(directory) / "config.json").read_text())["model_type"]
    if kind == "qwen2_5_vl":
        raise ValueError("Qwen2.5-VL: vLLM and transformers disagree on the times of videos; use data.observed=frames")
