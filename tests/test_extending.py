"""The worked changes of docs/extending: their diffs apply, and their scripts run on the changed package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in sorted((ROOT / "docs/extending").glob("*.md")) if page.stem != "index"]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code of a language, without the indentation of a list they stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return ["\n".join(line[len(indent) :] for line in text.split("\n")) for indent, text in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_worked_change_works(page: Path, tmp_path: Path) -> None:
    for package in ("future_l1_verl", "data_prep"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (script,) = blocks(page, "python")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{script}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert run().returncode, "the script does without the change"
    (diff,) = blocks(page, "diff")
    done = subprocess.run(["git", "apply", "--verbose"], cwd=tmp_path, input=diff, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = run()
    assert done.returncode == 0, done.stderr
