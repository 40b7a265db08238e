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
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[2]
WORK = tempfile.TemporaryDirectory()

# Names of files and folders that mean something to a shell, to hydra or to OmegaConf.
NASTY = (" a=b,(c) & #d 'e' \"f\"; [g] {h}: $HOME ", "~${i}\\${j}*\\\\'图`k`\\")

# Instead of Python: prints its arguments, writes them down beside itself, and fails if one of them is ``fail=yes``. Whoever is
# to read a pipe reads it.
ECHO = f"""#!{sys.executable}
import json, sys
if sys.argv[1:] == ["-m", "future_l1_verl.toy.progress"]:
    sys.stdin.read()
print(json.dumps(sys.argv[1:]))
with open(__file__ + ".calls", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
sys.exit("fail=yes" in sys.argv)
"""


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
def copy_of_recipes(name: str = "root") -> Path:
    """A root with the recipes, which install nothing and find a Python there that prints what it is asked to run."""
    root = Path(WORK.name) / name
    shutil.copytree(ROOT / "recipes", root / "recipes")
    (root / "recipes/env.sh").write_text("")
    (root / "future_l1_verl").symlink_to(ROOT / "future_l1_verl")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    return root


def calls(root: Path) -> list[tuple[str, list[str]]]:
    """Module, or script, and arguments of each call of the Python of a `copy_of_recipes`, since they were last asked for."""
    file = root / ".venv/bin/python.calls"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    file.unlink(missing_ok=True)
    return [(line[1], line[2:]) if line[0] == "-m" else (line[0], line[1:]) for line in lines]


def overrides(recipe: str, *arguments: str) -> list[list[str]]:
    """Of each run of a stage that the recipe starts, the overrides it gives: a dry run without 10 s of imports."""
    lines = [json.loads(line) for line in printed(recipe, *arguments, root=copy_of_recipes()).splitlines() if line[0] == "["]
    stages = [["-m", f"future_l1_verl.{stage}", "--cfg", "job", "--resolve"] for stage in ("sft", "rl")]
    assert all(line[:5] in stages for line in lines)
    return [line[5:] for line in lines]


def values(overrides: list[str]) -> DictConfig:
    """By key ``a.b.c`` the values of hydra's overrides, as whoever reads the config gets them."""
    return OmegaConf.create({each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(overrides)})


@functools.cache
def composed(*overrides: str, stage: str = "rl") -> DictConfig:
    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        return compose("main", overrides=list(overrides))


def resolved(*overrides: str, stage: str = "rl") -> dict[str, Any]:
    """The config that a dry run of this stage with these overrides prints."""
    return flat(OmegaConf.to_container(composed(*overrides, stage=stage), resolve=True))
