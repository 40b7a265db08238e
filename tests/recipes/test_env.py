"""What env.sh says of a machine, with stand-ins for the commands that it asks; nothing is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import which

import pytest
from dry_run import ROOT, copy_of_recipes

GOOD = {
    "getconf": "echo glibc 2.35",
    "nvidia-smi": "case $1 in *driver*) echo 580.65.06 ;; *) printf '9.0\\n9.0\\n' ;; esac",
    "nvcc": "echo 'Cuda compilation tools, release 13.0, V13.0.48'",
}


def look(folder: Path, *arguments: str, **commands: str) -> subprocess.CompletedProcess[str]:
    for name, body in (GOOD | {name.replace("_", "-"): body for name, body in commands.items()}).items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    command = ["bash", str(ROOT / "recipes/env.sh"), "cuda", "--dry-run", *arguments]
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_machine_with_everything(tmp_path: Path) -> None:
    done = look(tmp_path)
    assert done.returncode == 0 and "attention can be by flash_attention_2 here (compiled by" in done.stdout


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ({"getconf": "echo glibc 2.31"}, "glibc 2.35 or newer is needed"),
        ({"nvidia_smi": "echo 570.124.06"}, "an NVIDIA driver of 580 or newer, this machine has 570.124.06"),
    ],
)
def test_a_machine_that_cannot_run_it(tmp_path: Path, commands: dict[str, str], said: str) -> None:
    done = look(tmp_path, **commands)
    assert done.returncode == 1 and said in done.stderr


def test_without_a_fitting_compiler_attention_is_torch_s(tmp_path: Path) -> None:
    done = look(tmp_path, nvcc="echo 'Cuda compilation tools, release 12.8, V12.8.93'")
    assert done.returncode == 0 and "attention can be by sdpa here" in done.stdout
    assert "is of CUDA 12.8, torch of 13: install the CUDA toolkit 13.0, or give a wheel with --flash-attn" in done.stdout


def test_a_wheel_needs_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "flash_attn.whl").touch()
    done = look(tmp_path, "--flash-attn", str(tmp_path / "flash_attn.whl"), nvcc="exit 1")
    assert done.returncode == 0 and "attention can be by flash_attention_2 here (from" in done.stdout
    assert look(tmp_path, "--flash-attn", "nowhere.whl").returncode == 1


@pytest.mark.skipif(Path("/dev/nvidiactl").exists() or which("nvidia-smi") is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("recipe", ["sft_qwen3vl8b.sh", "la_dapo_futurebench.sh"])
@pytest.mark.parametrize(("address", "begins"), [(None, False), ("head:6379", True)])
def test_no_packages_for_gpus_are_installed_where_there_is_none(recipe: str, address: str | None, begins: bool) -> None:
    root = copy_of_recipes(f"{recipe} at {address}")
    (root / "recipes/env.sh").write_text("echo installing && exit 1\n")
    files = ["--model", "m", "--data", "d", "--out", "o", *(["--val", "v"] if recipe.startswith("la_dapo") else [])]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    done = subprocess.run(["bash", root / "recipes" / recipe, *files], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ("installing\n" if begins else "")
    assert ("no GPU found: add platform=cpu" in done.stderr) == (not begins)
