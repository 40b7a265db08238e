"""``python -m future_l1_verl.modeling.prepare --model DIR --out DIR``: a checkpoint that can learn to decode latents.

Copies a checkpoint directory, adds the control tokens, gives them rows of the embedding and of the output head, and writes
their ids and the budget into ``config.json``. Only the shards that hold those two matrices are read.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from future_l1_verl.latents.tokens import CONFIG_KEYS, CONTROL_TOKENS, LatentSettings, LatentTokens

# A new row starts as the row of the token that does the most similar thing for pictures.
RELATED = dict(zip(CONTROL_TOKENS, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"), strict=True))
MATRICES = ("embed_tokens.weight", "lm_head.weight")


def prepare(source: Path, out: Path, max_latents: int) -> LatentSettings:
    """Writes ``out`` from ``source``. A checkpoint that has all tokens already only gets the budget.

    Raises ValueError if ``source`` has some of the tokens or settings but not all, lacks a related token, or if ``out`` is
    not empty; FileNotFoundError if ``source`` has no weights in safetensors.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty")
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = json.loads((source / "config.json").read_text())
    _require_all_or_none(source, tokenizer, config)
    missing = [token for token in RELATED.values() if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(f"{source}: the tokenizer lacks {', '.join(missing)}, whose rows the new tokens start from")

    shutil.copytree(source, out, dirs_exist_ok=True)
    new = CONTROL_TOKENS[0] not in tokenizer.get_vocab()
    tokenizer.add_tokens(list(CONTROL_TOKENS), special_tokens=True)
    settings = LatentSettings(LatentTokens.from_tokenizer(tokenizer), max_latents)
    if new:
        tokenizer.save_pretrained(out)
        rows = {tokenizer.convert_tokens_to_ids(token): tokenizer.convert_tokens_to_ids(RELATED[token]) for token in RELATED}
        size = _write_rows(out, rows)
        for part in (config, config.get("text_config", {})):
            if "vocab_size" in part:
                part["vocab_size"] = size
    (out / "config.json").write_text(json.dumps(config | settings.to_config(), indent=2) + "\n")
    return settings


def _require_all_or_none(source: Path, tokenizer: PreTrainedTokenizerBase, config: dict) -> None:
    tokens = [token in tokenizer.get_vocab() for token in CONTROL_TOKENS]
    keys = [key in config for key in CONFIG_KEYS]
    if not (all(tokens + keys) or not any(tokens + keys)):
        present = [name for name, there in zip(CONTROL_TOKENS + CONFIG_KEYS, tokens + keys, strict=True) if there]
        raise ValueError(
            f"{source} has only half of what latents need ({', '.join(present)}); start from the original checkpoint"
        )


def _write_rows(directory: Path, rows: dict[int, int]) -> int:
    """Copies row ``rows[i]`` to row i in both matrices, lengthening them if need be. Returns their number of rows."""
    sizes = set()
    for name, shard in _shards(directory).items():
        with safe_open(shard, framework="pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a safetensors file is no dict
        tensors[name] = _with_rows(tensors[name], rows)
        sizes.add(len(tensors[name]))
        save_file(tensors, shard, metadata=metadata)
    if len(sizes) != 1:
        raise ValueError(f"{directory}: embedding and output head have different numbers of rows: {sorted(sizes)}")
    return sizes.pop()


def _with_rows(matrix: Tensor, rows: dict[int, int]) -> Tensor:
    """A copy of ``[V, H]`` with the new rows; padded vocabularies (Qwen3-VL: 151,936 rows) have room for them already."""
    longer = torch.zeros(max(len(matrix), max(rows) + 1), matrix.shape[1], dtype=matrix.dtype)
    longer[: len(matrix)] = matrix
    for row, related in rows.items():
        longer[row] = matrix[related]
    return longer


def _shards(directory: Path) -> dict[str, Path]:
    """The file of each of the matrices; a tied output head has none."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = json.loads(index.read_text())["weight_map"]
    else:
        single = directory / "model.safetensors"
        if not single.is_file():
            raise FileNotFoundError(f"{directory} has neither model.safetensors nor model.safetensors.index.json")
        with safe_open(single, framework="pt") as file:
            files = dict.fromkeys(file.keys(), single.name)
    return {name: directory / file for name, file in files.items() if name.endswith(MATRICES)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m future_l1_verl.modeling.prepare", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory of a Qwen3-VL")
    parser.add_argument("--out", type=Path, required=True, help="new or empty directory")
    parser.add_argument("--max-latents", type=int, default=4, help="latents per span (L_max)")
    args = parser.parse_args()
    print(prepare(args.model, args.out, args.max_latents))


if __name__ == "__main__":
    main()
