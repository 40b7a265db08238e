"""Saves the resolved config with the run, and prevents a run from being resumed with other settings."""

import io
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from future_l1_verl.files import whole

# A file that verl writes with its first checkpoint, and resumes from.
TRACKER = "latest_checkpointed_iteration.txt"

# Patterns of keys, by the reason, that may change in a resumed run, since they do not change what it learns.
MAY_CHANGE = {
    "how long it goes on, and where from": (
        *("trainer.total_epochs", "*total_training_steps", "trainer.resume_mode", "trainer.resume_from_path"),
    ),
    "what it saves, validates and tells": (
        *("*.save_freq", "*.test_freq", "trainer.val_before_train", "*max*ckpt_to_keep", "trainer.logger"),
        *("*project_name", "*experiment_name", "trainer.log_val_generations"),
    ),
    "where its files are": (
        *("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir"),
        *("data.manifest", "*.dropped_file", "*cache_dir", "judge.cache", "judge.api_key_file"),
    ),
    "which machines it runs on, and whom it asks": (
        *("*nnodes", "*n_gpus_per_node", "trainer.node_rank", "trainer.master_addr", "trainer.master_port"),
        *(
            "*num_workers",
            "*attn_implementation",
            "ray_kwargs.*",
            "judge.url",
            "judge.concurrency",
            "judge.timeout",
            "judge.attempts",
            "judge.backoff",
        ),
    ),
    "how it uses their memory": (
        *("*micro_batch_size_per_gpu", "*max_token_len_per_gpu", "*gpu_memory_utilization", "*param_offload"),
        "*optimizer_offload",
    ),
}
SHOWN = 20


def save_resolved(config: DictConfig) -> Path:
    """Writes ``config.yaml`` into ``trainer.default_local_dir``, with every interpolation resolved.

    Raises ValueError, and writes nothing, if the folder has a checkpoint with other settings (except `MAY_CHANGE`), or if a
    value contains ``${``, which verl would treat as an interpolation.
    """
    path = Path(config.trainer.default_local_dir) / "config.yaml"
    text = OmegaConf.to_yaml(config, resolve=True)
    new = _flat(text)
    if broken := [key for key, value in new.items() if "${" in str(value)]:
        raise ValueError(f"{broken[0]}={new[broken[0]]}: verl takes ${{ for a reference to another setting; use another name")
    if path.is_file() and (path.parent / TRACKER).is_file():
        old = _flat(path.read_text(encoding="utf-8"))
        keys = [key for key in sorted(old.keys() | new.keys()) if not _may_change(key) and old.get(key) != new.get(key)]
        if keys:
            told = [f"{key}: {old.get(key)!r}, now {new.get(key)!r}" for key in keys[:SHOWN]]
            told += [f"{len(keys) - SHOWN} more"] * (len(keys) > SHOWN)
            raise ValueError(
                f"{path.parent} holds a run with other settings ({'; '.join(told)}); choose another trainer.default_local_dir, "
                f"or remove {path} to go on from that run's last checkpoint with these settings"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def _may_change(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for patterns in MAY_CHANGE.values() for pattern in patterns)


def _flat(text: str) -> dict[str, Any]:
    """Returns a YAML config's keys ``a.b.c`` with their values."""
    found: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                walk(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = value

    walk(OmegaConf.to_container(OmegaConf.load(io.StringIO(text))), "")
    return found
