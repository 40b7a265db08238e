"""The three control tokens of a latent span and the keys of ``config.json`` that hold their ids.

A checkpoint that can decode latents has the three ids and the budget in its ``config.json`` under ``CONFIG_KEYS``, so that
``vllm serve <checkpoint>`` needs no further setting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LATENT_START = "<|latent_start|>"
LATENT = "<|latent|>"
LATENT_END = "<|latent_end|>"
CONTROL_TOKENS = (LATENT_START, LATENT, LATENT_END)

CONFIG_KEYS = ("latent_start_token_id", "latent_token_id", "latent_end_token_id", "max_latents")
OURS = CONFIG_KEYS[0]
"""A key that no other project's checkpoints have; ``latent_token_id`` is a common name."""
HOW_TO_ADD = "add them with `python -m future_l1_verl.modeling.prepare --model DIR --out DIR`"


class Tokenizer(Protocol):
    """The one method of a transformers tokenizer that is used here."""

    def get_vocab(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class LatentTokens:
    """The ids of ``<|latent_start|>``, ``<|latent|>`` and ``<|latent_end|>``."""

    start: int
    latent: int
    end: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> LatentTokens:
        """Returns the ids in a tokenizer. Raises ValueError naming the tokens that it lacks."""
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in CONTROL_TOKENS if token not in vocabulary]
        if missing:
            raise ValueError(f"the tokenizer lacks {', '.join(missing)}; {HOW_TO_ADD}")
        return cls(*(vocabulary[token] for token in CONTROL_TOKENS))


@dataclass(frozen=True)
class LatentSettings:
    """The settings of latent spans in a checkpoint: token ids and the budget ``max_latents`` (L_max, paper section 1)."""

    tokens: LatentTokens
    max_latents: int

    def __post_init__(self) -> None:
        if self.max_latents < 1:
            raise ValueError(f"max_latents must be at least 1, not {self.max_latents}")

    @classmethod
    def from_config(cls, config: Any) -> LatentSettings:
        """Reads a ``config.json`` as a mapping, or a transformers config. Raises ValueError if a key is missing."""
        values = config if isinstance(config, dict) else config.to_dict()
        missing = [key for key in CONFIG_KEYS if values.get(key) is None]
        if missing:
            raise ValueError(f"the checkpoint's config.json lacks {', '.join(missing)}; {HOW_TO_ADD}")
        start, latent, end, max_latents = (int(values[key]) for key in CONFIG_KEYS)
        return cls(LatentTokens(start, latent, end), max_latents)

    @classmethod
    def from_checkpoint(cls, directory: str | Path) -> LatentSettings:
        """Reads the ``config.json`` of a checkpoint directory. Raises FileNotFoundError or ValueError, naming the file."""
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; a checkpoint directory holds a config.json")
        try:
            return cls.from_config(json.loads(path.read_text()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_config(self) -> dict[str, int]:
        """Returns the entries of ``config.json``."""
        values = (self.tokens.start, self.tokens.latent, self.tokens.end, self.max_latents)
        return dict(zip(CONFIG_KEYS, values, strict=True))
