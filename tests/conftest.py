"""The environment that torch and vLLM are started in; that no test fails because a machine is busy; who runs what."""

import gc
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

from future_l1_verl.collector import spare_libraries
from future_l1_verl.platform.launch import take_platform

spare_libraries()
# Read when torch is loaded, and by vLLM in this process and in those it starts.
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
)
if not Path("/dev/nvidia0").exists():
    # vLLM compiles small functions of its sampler, in every process anew; a GPU's tests are to run what a GPU runs.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    take_platform("cpu")

INTERPRETER = Path(__file__).parent / "triton_on_cpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model-runner", choices=("v1", "v2"), default="v1", help="vLLM's model runner; v2 is slow on a CPU")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports vLLM."""
    if config.getoption("--model-runner") == "v2":
        path = os.pathsep.join([str(INTERPRETER), *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ.update(VLLM_USE_V2_MODEL_RUNNER="1", TRITON_INTERPRET="1", PYTHONPATH=path)
        runpy.run_path(str(INTERPRETER / "sitecustomize.py"))


settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_for_the_next_file() -> Iterator[None]:
    """Restores the environment, which vLLM and others add to, and fails a file that leaves a process group, for torch makes no
    second one. Either would change how the engines of later files in this process run."""
    with patch.dict(os.environ):
        yield
    if torch := sys.modules.get("torch"):
        assert not torch.distributed.is_initialized(), "a test of this file leaves a process group"


def pytest_collection_finish() -> None:
    """Leaves the libraries imported so far out of later collections of garbage, which engines and trainers ask for."""
    gc.freeze()


# What takes longest begins first. Curation and the evaluation start from the run that the quickstart's file makes
# (tests/e2e/conftest.py).
ORDER = [
    *("tests/e2e/test_quickstart.py", "tests/e2e/", "tests/e2e/test_curation.py"),
    *("tests/benchmarks/", "tests/e2e/test_evaluation.py", "tests/"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return ORDER.index(max((each for each in ORDER if item.nodeid.startswith(each)), key=len))

    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.timeout(5000))  # whoever comes second waits for the run of whoever comes first
