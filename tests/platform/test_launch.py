"""Where verl runs, as it says by itself; a Ray with too few devices."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.plugin.platform import platform_manager

from future_l1_verl.platform.launch import require_devices, require_platform

pytestmark = pytest.mark.engine

FOUND = "from verl.utils.device import get_device_name; print(get_device_name())"


def found(before: str = "", **environment: str) -> str:
    """The device that verl finds in a process of its own, beside our package."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VERL_")}
    command = [sys.executable, "-c", f"{before}\n{FOUND}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | environment)
    return done.stdout.splitlines()[-1]


def test_verl_is_left_alone_unless_the_config_says_cpu() -> None:
    """Without a GPU stock verl takes a process for one of a cluster of them, as a driver is."""
    take = "from future_l1_verl.platform.launch import take_platform; take_platform({!r})"
    assert found() == found(take.format("cuda")) == "cuda"
    assert found(take.format("cpu")) == found("import verl; " + take.format("cpu")) == "cpu"
    beside = take.format("cpu") + "; import os; assert os.environ['VERL_USE_EXTERNAL_MODULES'].startswith('json,future_l1')"
    assert found(beside, VERL_USE_EXTERNAL_MODULES="json") == "cpu"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ray_starts_processes_that_find_it_too(device: str) -> None:
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        tree = compose("main", overrides=[f"platform={device}"])
    told = OmegaConf.to_container(tree.ray_kwargs.ray_init.runtime_env).get("env_vars", {})
    assert tree.trainer.device == found(**told) == device


def with_gpus(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0} | ({"GPU": float(gpus)} if gpus else {}))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is what stock verl takes it for."""
    monkeypatch.setattr(platform_manager, "_current_platform", SimpleNamespace(device_name="cuda"))


def test_a_driver_without_a_gpu_starts_what_others_run(monkeypatch: pytest.MonkeyPatch, driver: None) -> None:
    with_gpus(monkeypatch, 8)
    require_devices("cuda", 8)
    with pytest.raises(RuntimeError, match=r"trainer\.device is cpu but verl runs on cuda; choose `platform=cpu`"):
        require_platform("cpu")


@pytest.mark.parametrize(
    ("gpus", "message"), [(0, "2 GPUs are asked for, and Ray has 0; `platform=cpu` needs none"), (1, "and Ray has 1$")]
)
def test_a_ray_with_too_few_is_refused(monkeypatch: pytest.MonkeyPatch, driver: None, gpus: int, message: str) -> None:
    with_gpus(monkeypatch, gpus)
    with pytest.raises(RuntimeError, match=message):
        require_devices("cuda", 2)


def test_logical_devices_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    require_devices("cpu", 1)
    with pytest.raises(RuntimeError, match=r"2 GPUs are asked for, and Ray has 1$"):
        require_devices("cpu", 2)


def test_an_accelerator_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_manager, "_current_platform", SimpleNamespace(device_name="npu"))
    with_gpus(monkeypatch, 8)
    with pytest.raises(RuntimeError, match=r"trainer\.device is cuda but verl runs on npu"):
        require_devices("cuda", 8)
