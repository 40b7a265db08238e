"""Keeps the resolved config with the run that used it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def save_resolved(config: DictConfig) -> Path:
    """Writes ``config.yaml`` into ``trainer.default_local_dir``, with every interpolation resolved."""
    path = Path(config.trainer.default_local_dir) / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, path, resolve=True)
    return path
