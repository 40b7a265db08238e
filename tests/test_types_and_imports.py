"""Annotations are true, and packages import downwards only (pyproject.toml: tool.mypy and tool.importlinter)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("checker", ["mypy", "lint-imports"])
def test_nothing_is_found(checker: str) -> None:
    found = subprocess.run([Path(sys.executable).with_name(checker)], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_scripts_that_no_test_runs_call_what_there_is() -> None:
    """Benchmarks are annotated for readers; of what mypy says of them only wrong arguments are faults."""
    folders = [ROOT / name for name in ("benchmarks", "tests", "tests/e2e")]
    command = [Path(sys.executable).with_name("mypy"), "--explicit-package-bases", ROOT / "benchmarks"]
    environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, folders))}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    assert "checked" in found
    assert [line for line in found.splitlines() if line.endswith("[call-arg]")] == []
