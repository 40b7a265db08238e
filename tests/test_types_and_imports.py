"""Annotations are true, and packages import downwards only (pyproject.toml: tool.mypy and tool.importlinter)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("checker", ["mypy", "lint-imports"])
def test_nothing_is_found(checker: str) -> None:
    found = subprocess.run([Path(sys.executable).with_name(checker)], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
