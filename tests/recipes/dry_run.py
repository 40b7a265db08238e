"""What recipes would run, as their ``--dry-run`` prints it; no GPU, data or model is there."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
WORK = tempfile.TemporaryDirectory()

# Instead of Python: prints its arguments.
ECHO = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def run(recipe: str, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", root / "recipes" / recipe, *arguments], cwd="/", capture_output=True, text=True)


@functools.cache
def printed(recipe: str, *arguments: str, root: Path = ROOT) -> str:
    done = run(recipe, *arguments, "--dry-run", root=root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dry_run(recipe: str, *arguments: str) -> list[dict[str, Any]]:
    """The resolved configs, each as its keys ``a.b.c`` with their values."""
    return [flat(config) for config in yaml.safe_load_all(printed(recipe, *arguments)) if config is not None]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Keys whose values differ, with those of ``other``."""
    return {key: other.get(key) for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@functools.cache
def copy_of_recipes() -> Path:
    """A root with the recipes, which find a Python there that prints what it is asked to run."""
    root = Path(WORK.name) / "root"
    shutil.copytree(ROOT / "recipes", root / "recipes")
    (root / "future_l1_verl").symlink_to(ROOT / "future_l1_verl")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    return root


def overrides(recipe: str, *arguments: str) -> list[list[str]]:
    """Of each run of stage 2 that the recipe starts, the overrides it gives: a dry run without 10 s of imports."""
    lines = [json.loads(line) for line in printed(recipe, *arguments, root=copy_of_recipes()).splitlines() if line[0] == "["]
    before = ["-m", "future_l1_verl.rl", "--cfg", "job", "--resolve"]
    assert all(line[:5] == before for line in lines)
    return [line[5:] for line in lines]


@functools.cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        return compose("main", overrides=list(overrides))


def resolved(*overrides: str) -> dict[str, Any]:
    """The config of stage 2 that a dry run with these overrides prints."""
    return flat(OmegaConf.to_container(composed(*overrides), resolve=True))
