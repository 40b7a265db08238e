"""``future-l1 export``: makes a trained checkpoint ready for use elsewhere.

Turns the folder of a stage-1 or stage-2 run into a directory that transformers and ``vllm serve`` can load. verl writes nearly
this form (``checkpoint.save_contents`` has ``hf_model``), so the files are checked and linked or copied. For LoRA, verl writes
base weights and adapters side by side, and they are merged.
"""

import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoProcessor

from future_l1_verl.modeling.checkpoint import check_checkpoint
from future_l1_verl.modeling.prepare import (
    INDEX,
    copy_checkpoint,
    new_directory,
    read_json,
    weight_files,
    write_config,
    wrongly_loaded,
)

FOLDERS = ("huggingface", "actor/huggingface")
"""The paths of verl's checkpoint inside ``global_step_N``: in stage 1, in stage 2."""

# One file of each line must exist.
NEEDED = (
    ("config.json",),
    ("generation_config.json",),
    ("tokenizer.json",),
    ("tokenizer_config.json",),
    ("processor_config.json", "preprocessor_config.json"),
    ("chat_template.jinja", "chat_template.json"),
)


def export(source: Path, out: Path) -> None:
    """Writes ``out`` from ``source``, a ``huggingface`` folder of verl's, atomically.

    Raises FileNotFoundError or ValueError naming what ``source`` lacks (a file, a shard, a setting of latents, tensors), and
    FileExistsError if ``out`` is not empty.
    """
    missing = [" or ".join(files) for files in NEEDED if not any((source / file).is_file() for file in files)]
    if missing:
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}")
    check_checkpoint(source)
    files = weight_files(source)
    with new_directory(source, out) as directory:
        if any(".lora_A." in name for name in files):
            copy_checkpoint(source, directory, without={*files.values(), INDEX})
            _merge(source, directory, files)
        else:
            copy_checkpoint(source, directory)
        config = read_json(source / "config.json")
        # verl keeps the training's setting; if it is FlashAttention, a machine without it could not load the model.
        config.pop("attn_implementation", None)
        write_config(directory, config)
        AutoProcessor.from_pretrained(directory)
        if wrong := wrongly_loaded(directory):
            raise ValueError(f"{source}: its weights are not those of its config.json ({wrong})")


def _merge(source: Path, out: Path, files: dict[str, str]) -> None:
    """Writes the weights with their LoRA adapters merged, one shard in memory at a time."""
    alpha = read_json(source.parent / "lora_train_meta.json").get("lora_alpha")
    if not alpha:
        raise ValueError(f"{source.parent / 'lora_train_meta.json'} has no lora_alpha, which the adapters are scaled by")

    def read(name: str) -> Tensor:
        with safe_open(source / files[name], framework="pt") as file:
            return file.get_tensor(name)

    index: dict[str, str] = {}
    size = 0
    for shard in sorted(set(files.values())):
        merged = {}
        for name in (name for name, file in files.items() if file == shard and ".lora_" not in name):
            tensor = read(name)
            if name.endswith(".base_layer.weight"):
                layer = name.removesuffix(".base_layer.weight")
                down, up = (read(f"{layer}.lora_{side}.default.weight").float() for side in "AB")
                tensor = (tensor.float() + alpha / len(down) * up @ down).to(tensor.dtype)
            merged[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
        if merged:
            save_file(merged, out / shard, metadata={"format": "pt"})
            index |= dict.fromkeys(merged, shard)
            size += sum(tensor.nbytes for tensor in merged.values())
    if (source / INDEX).is_file():
        (out / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=2) + "\n")


def find(run: Path, step: int | None = None) -> Path:
    """Returns the ``huggingface`` folder of a step of a run, by default of the last. Raises FileNotFoundError, or ValueError
    if the file that names the last step does not hold a number."""
    if step is None:
        tracker = run / "latest_checkpointed_iteration.txt"
        if not tracker.is_file():
            raise FileNotFoundError(
                f"{tracker} does not exist; a run's folder (trainer.default_local_dir) has it once a step is saved"
            )
        text = tracker.read_text().strip()
        if not text.isdecimal():
            raise ValueError(f"{tracker} holds {text!r}, not the number of a step; choose one with --step, of {_steps(run)}")
        step = int(text)
    for folder in FOLDERS:
        if (run / f"global_step_{step}" / folder).is_dir():
            return run / f"global_step_{step}" / folder
    raise FileNotFoundError(f"{run} has no global_step_{step} with {' or '.join(FOLDERS)}; its steps are {_steps(run)}")


def find_best(run: Path) -> Path:
    """Returns the ``huggingface`` folder of stage 1's step with the lowest validation loss. Raises FileNotFoundError."""
    best = run / "best/huggingface"
    if not best.is_dir():
        raise FileNotFoundError(
            f"{run} has no best/huggingface: stage 1 keeps it where steps are both validated and saved (trainer.test_freq, "
            f"trainer.save_freq); its steps are {_steps(run)}, choose one with --step"
        )
    return best


def _steps(run: Path) -> list[int]:
    steps = (path.name.removeprefix("global_step_") for path in run.glob("global_step_*"))
    return sorted(int(step) for step in steps if step.isdecimal())


if __name__ == "__main__":
    from future_l1_verl.cli import main

    sys.argv.insert(1, "export")
    sys.exit(main())
