"""The second set of versions, in a light form: its lock installs, and an engine of its V2 runner agrees with the oracle."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.e2e


def test_engines_of_the_serve_set_agree_with_the_oracle() -> None:
    run = subprocess.run(["bash", "tests/serve.sh", "--light"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert re.findall(r"(\d+) passed", run.stdout) == ["2"]
