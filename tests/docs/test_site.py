"""The site of the docs builds without a warning, its reference is that of the code, and README's links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Latent spans" in (tmp_path / "site/index.html").read_text()


def test_the_reference_is_that_of_the_code() -> None:
    spec = spec_from_file_location("write_reference", ROOT / "docs/reference/write.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.config() == (ROOT / "docs/reference/config.md").read_text()
    assert module.command_line().split() == (ROOT / "docs/reference/command-line.md").read_text().split()


def test_the_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert len(text.split()) < 900
