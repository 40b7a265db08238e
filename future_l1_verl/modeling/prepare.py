"""``future-l1 prepare``: makes a checkpoint that can learn to decode latents.

Copies a checkpoint directory, adds the control tokens, gives them rows of the embedding and of the output head, and writes
their ids and the budget into ``config.json``. Weights are hard-linked if the file system allows it, else copied; the shards
with those two matrices are written anew, one at a time and each through memory (5 GB in published checkpoints). A linked file
is shared with the original: code that changes weights later must write a new file in its place.
"""

import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from future_l1_verl.files import whole_folder
from future_l1_verl.latents.tokens import CONFIG_KEYS, CONTROL_TOKENS, LatentSettings, LatentTokens

# A new row starts as a copy of the row of the most similar token for pictures.
RELATED = dict(zip(CONTROL_TOKENS, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"), strict=True))
MATRICES = ("embed_tokens.weight", "lm_head.weight")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"

# The class of the language model alone: vLLM looks for it in text_config, and published checkpoints lack it.
LANGUAGE_MODELS = {"qwen3_vl_text": "Qwen3ForCausalLM", "qwen2_5_vl_text": "Qwen2ForCausalLM"}


def prepare(source: Path, out: Path, max_latents: int) -> LatentSettings:
    """Writes ``out`` from ``source``, atomically. A checkpoint that has all tokens already only gets the budget.

    Raises ValueError if ``source`` has some of the tokens or settings but not all, lacks a related token, or has an unreadable
    file, matrices that do not fit its tokenizer or weights that transformers would not load unchanged; FileNotFoundError naming
    the file that ``source`` lacks; FileExistsError if ``out`` is not empty.
    """
    config = read_json(source / "config.json")
    weight_files(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    vocabulary = tokenizer.get_vocab()
    _require_all_or_none(source, vocabulary, config)
    missing = [token for token in RELATED.values() if token not in vocabulary]
    if missing:
        raise ValueError(f"{source}: the tokenizer lacks {', '.join(missing)}, whose rows the new tokens start from")
    matrices = _matrices(source, config, max(vocabulary.values()) + 1)
    if wrong := wrongly_loaded(source):
        raise ValueError(f"{source}: transformers would not load its weights as they are ({wrong})")

    tokenizer.add_tokens(list(CONTROL_TOKENS), special_tokens=True)
    settings = LatentSettings(LatentTokens.from_tokenizer(tokenizer), max_latents)
    config |= settings.to_config()
    with new_directory(source, out) as directory:
        if CONTROL_TOKENS[0] in vocabulary:
            copy_checkpoint(source, directory)
        else:
            copy_checkpoint(source, directory, without=matrices)
            tokenizer.save_pretrained(directory)
            ids = tokenizer.get_vocab()
            size = _write_rows(source, directory, matrices, {ids[new]: ids[related] for new, related in RELATED.items()})
            for part in (config, config.get("text_config", {})):
                if "vocab_size" in part:
                    part["vocab_size"] = size
        write_config(directory, config)
    return settings


def _require_all_or_none(source: Path, vocabulary: dict[str, int], config: dict) -> None:
    tokens = [token in vocabulary for token in CONTROL_TOKENS]
    keys = [key in config for key in CONFIG_KEYS]
    if not (all(tokens + keys) or not any(tokens + keys)):
        present = [name for name, there in zip(CONTROL_TOKENS + CONFIG_KEYS, tokens + keys, strict=True) if there]
        raise ValueError(
            f"{source} has only half of what latents need ({', '.join(present)}); start from the original checkpoint"
        )


def _matrices(source: Path, config: dict, tokens: int) -> dict[str, list[str]]:
    """Returns, by shard, the names of the embedding and (unless tied) the output head in it.

    Raises ValueError if one is missing, if their numbers of rows differ or are lower than ``tokens``, or if they are tied and
    differ.
    """
    found: dict[str, list[str]] = {}
    rows: dict[str, int] = {}
    for name, shard in weight_files(source).items():
        if name.endswith(MATRICES):
            found.setdefault(shard, []).append(name)
            rows[name] = shapes(source / shard)[name][0]
    tied = config.get("tie_word_embeddings", False)
    for matrix in MATRICES[:1] if tied else MATRICES:
        if not any(name.endswith(matrix) for name in rows):
            inner = config.get("text_config", {}).get("tie_word_embeddings", False)
            hint = "; transformers reads tie_word_embeddings at the top of config.json, not in text_config" if inner else ""
            raise ValueError(f"{source}: its weights have no {matrix}{hint}")
    if len(set(rows.values())) != 1:
        raise ValueError(f"{source}: embedding and output head have different numbers of rows: {rows}")
    for name, number in rows.items():
        if number < tokens:
            raise ValueError(f"{source}: {name} has {number} rows, the tokenizer {tokens} tokens")
    if tied and len(rows) > 1 and not torch.equal(*(_tensor(source / shard, name) for shard in found for name in found[shard])):
        raise ValueError(f"{source}: config.json ties {' and '.join(rows)}, which differ; set tie_word_embeddings to false")
    return found


def _tensor(shard: Path, name: str) -> torch.Tensor:
    with safe_open(shard, framework="pt") as file:
        return file.get_tensor(name)


def _write_rows(source: Path, out: Path, matrices: dict[str, list[str]], rows: dict[int, int]) -> int:
    """Writes the shards of the matrices with row ``rows[i]`` copied to row i, lengthened if needed. Returns their length.

    Padded vocabularies (Qwen3-VL: 151,936 rows for 151,669 tokens) have room for the new rows already.
    """
    added = {"total_size": 0, "total_parameters": 0}
    for shard, names in matrices.items():
        with safe_open(source / shard, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        for name in names:
            old = tensors[name]
            size = max(len(old), max(rows) + 1)
            tensors[name] = new = torch.cat([old, old.new_zeros(size - len(old), old.shape[1])])
            new[list(rows)] = old[list(rows.values())]
            added["total_size"] += new.nbytes - old.nbytes
            added["total_parameters"] += new.numel() - old.numel()
        save_file(tensors, out / shard, metadata)
    if (source / INDEX).is_file():
        index = read_json(source / INDEX)
        totals = index.get("metadata", {})
        totals.update({key: totals[key] + number for key, number in added.items() if key in totals})
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return size


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises FileNotFoundError, or ValueError if the file holds something else; both name it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def shapes(shard: Path) -> dict[str, list[int]]:
    """Returns the shapes in a safetensors file by tensor. Raises ValueError naming the file if it is none, or not whole."""
    try:
        with safe_open(shard, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        with shard.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        why = "it is a pointer of Git LFS; run git lfs pull" if pointer else error
        raise ValueError(f"{shard} is not a whole safetensors file: {why}") from error


def weight_files(directory: Path) -> dict[str, str]:
    """Returns file names by tensor name, of complete files.

    Raises FileNotFoundError or ValueError naming the file that is missing, unreadable, lacks a tensor that the index places
    there, or is not in the index: transformers and vLLM differ in which files they read then.
    """
    if (directory / INDEX).is_file():
        files = read_json(directory / INDEX).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
            raise ValueError(f"{directory / INDEX} has no weight_map")
        missing = sorted({file for file in files.values() if not (directory / file).is_file()})
        if missing:
            raise FileNotFoundError(f"{directory} lacks {', '.join(missing)}, named in {INDEX}")
        there = {file: shapes(directory / file) for file in sorted(set(files.values()))}
        for name, file in files.items():
            if name not in there[file]:
                raise ValueError(f"{directory / file} lacks {name}, which {INDEX} places there")
    elif (directory / SINGLE).is_file():
        files = dict.fromkeys(shapes(directory / SINGLE), SINGLE)
    else:
        raise FileNotFoundError(f"{directory} has neither {SINGLE} nor {INDEX}")
    others = sorted({path.name for path in directory.glob("*.safetensors")} - {*files.values()})
    if others:
        raise ValueError(f"{directory}: {', '.join(others)} beside the files of its weights; remove what does not belong")
    return files


def wrongly_loaded(directory: Path) -> str:
    """Returns which weights transformers would not find, find in another shape or leave out, or why it loads none; empty if
    all is well. No weights are read."""
    head = any(name.endswith(MATRICES[1]) for name in weight_files(directory))
    try:
        config = AutoConfig.from_pretrained(directory)
        # Without weights, tied tensors that are both in the file cannot be compared.
        config.tie_word_embeddings &= not head
        _, report = AutoModelForImageTextToText.from_pretrained(
            directory, config=config, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
        )
    # A config that does not fit raises many kinds of errors.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wrong = {kind.split("_")[0]: sorted(map(str, names)) for kind, names in report.items() if names}
    return "; ".join(f"{kind}: {', '.join(names[:5])}{' ...' * (len(names) > 5)}" for kind, names in wrong.items())


@contextmanager
def new_directory(source: Path, out: Path) -> Iterator[Path]:
    """Yields a directory that is renamed to ``out`` when the block ends, and deleted if it raises.

    Raises ValueError if ``out`` is, or lies in, ``source``, and FileExistsError if it is not empty.
    """
    out = out.resolve()
    if out.is_relative_to(source.resolve()):
        raise ValueError(f"{out} is {source} itself or lies in it")
    with whole_folder(out) as folder:
        yield folder


def copy_checkpoint(source: Path, out: Path, without: Collection[str] = ()) -> None:
    """Copies a checkpoint directory except the files named in ``without``; weights are hard-linked where possible."""

    def link_or_copy(file: str, target: str) -> None:
        if file.endswith(".safetensors"):
            try:
                # A cache of the Hugging Face hub holds symbolic links.
                os.link(os.path.realpath(file), target)
                return
            except OSError:
                pass
        shutil.copy2(file, target)

    def left_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(directory) == source and name in without]

    shutil.copytree(source, out, copy_function=link_or_copy, ignore=left_out, dirs_exist_ok=True)


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Writes ``config.json``, and adds the language model's class to a ``text_config`` that lacks it."""
    text = config.get("text_config", {})
    if text.get("model_type") in LANGUAGE_MODELS:
        text["architectures"] = text.get("architectures") or [LANGUAGE_MODELS[text["model_type"]]]
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    from future_l1_verl.cli import main

    sys.argv.insert(1, "prepare")
    sys.exit(main())
