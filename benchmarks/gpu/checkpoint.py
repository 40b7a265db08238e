"""Checkpoints with random weights and latents, in the shapes that the phases need; made once, if absent.

Tokenizer and processors are those of toy/tiny.py, whose few hundred ids are text. What is left of a larger vocabulary the
tokenizer knows as words that no text contains: the rollout never says an id that the tokenizer lacks (verl masks them), and
the actor, which masks none, would have other log-probs. The start token is made likelier, so that spans open.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.toy import tiny

VOCABULARY = 151936
OPENS = 15


@dataclass(frozen=True)
class Shape:
    """What differs from the tiny checkpoint's config; ``tied``: whether the output head is the input embedding."""

    text: dict[str, Any] = field(default_factory=dict)
    rope: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)
    tied: bool = True


ROPE = {"rope_theta": 5e6, "mrope_section": [24, 20, 20]}
SHAPES = {
    "tiny": Shape(),
    "tiny untied": Shape(tied=False),
    # As wide and deep as two cores can take.
    "1k, 4 layers": Shape(
        text={
            "vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
        },
        rope=ROPE,
        vision={"out_hidden_size": 1024},
    ),
    # Qwen3-VL-2B's language model, and a tower of a quarter of its layers.
    "2b": Shape(
        text={
            "vocab_size": VOCABULARY, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        },
        rope=ROPE,
        vision={
            "depth": 6, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
            "num_position_embeddings": 2304, "deepstack_visual_indexes": [1, 3, 5],
        },
    ),
    # Two of the 36 layers of Qwen3-VL-8B's language model, and the tiny tower.
    "8b, 2 layers": Shape(
        text={
            "vocab_size": VOCABULARY, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 2,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        },
        rope=ROPE,
        vision={"out_hidden_size": 4096},
        tied=False,
    ),
}  # fmt: skip


def checkpoint(name: str, folder: Path, seed: int = 0) -> Path:
    """Returns the checkpoint directory of the shape ``name`` in ``folder``, which is written first if it is not there."""
    out = folder / name.replace(", ", "-").replace(" ", "-")
    if not out.exists():
        unfinished = out.with_name(f"{out.name}.{os.getpid()}")
        _build(unfinished, SHAPES[name], seed)
        unfinished.rename(out)
    return out


def _build(out: Path, shape: Shape, seed: int) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    shutil.rmtree(out, ignore_errors=True)
    tiny.build(out, seed=seed)
    if shape == SHAPES["tiny"]:
        return
    latent = LatentSettings.from_checkpoint(out)
    config = AutoConfig.from_pretrained(out)
    config.text_config.update(shape.text)
    config.text_config.rope_parameters.update(shape.rope)
    config.vision_config.update(shape.vision)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = shape.tied
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16 if shape.text else torch.float32)
    # A row's logits have a standard deviation of about 1, this one's of 13; the others' logsumexp is 12.
    model.get_output_embeddings().weight.data[latent.tokens.start] *= OPENS
    model.save_pretrained(out)
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | latent.to_config(), indent=2) + "\n")
    _fill_vocabulary(out / "tokenizer.json", config.text_config.vocab_size)


def _fill_vocabulary(path: Path, size: int) -> None:
    """Gives the tokenizer a word for each id below ``size``. No merge leads to one, so that no text is encoded by them."""
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    # Added tokens keep their ids only if the model has them too.
    words |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    words |= {f"<|unused_{number}|>": number for number in range(len(words), size)}
    path.write_text(json.dumps(tokenizer))
