"""One run of the quickstart for all files: the process that needs it first makes it, the others wait."""

from pathlib import Path

import pytest
from e2e_environment import SEED, recipe
from filelock import FileLock, Timeout


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "quickstart"


@pytest.fixture(scope="session")
def run(run_folder: Path) -> Path:
    failed = run_folder.with_suffix(".failed")
    with FileLock(run_folder.with_suffix(".lock")):
        if not (run_folder / "logs/report.done").exists() and not failed.exists():
            result = recipe("quickstart.sh", "--run", str(run_folder), "--seed", SEED)
            if result.returncode:
                failed.write_text(result.stdout[-2000:] + result.stderr[-6000:])
    assert not failed.exists(), failed.read_text()
    return run_folder


@pytest.fixture(scope="session")
def stage_1(run_folder: Path, request: pytest.FixtureRequest) -> Path:
    """The run as soon as it is through stage 1, from which curation starts."""
    while not (run_folder / "logs/sft.done").exists():
        try:
            with FileLock(run_folder.with_suffix(".lock"), timeout=1):
                pass
        except Timeout:
            continue  # another process is at it
        return request.getfixturevalue("run")
    return run_folder
