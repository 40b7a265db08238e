"""The quickstart's run, made once for all that start from it."""

from pathlib import Path

import pytest
from e2e_environment import SEED, recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    result = recipe("quickstart.sh", "--run", str(folder), "--seed", SEED)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]
    return folder
