"""Who starts a run where: a driver without a GPU, a Ray with too few."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from hydra import compose, initialize_config_module
from verl.plugin.platform import platform_manager

from future_l1_verl.platform.launch import require_devices, require_platform


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is set is forgotten afterwards."""
    monkeypatch.setattr(platform_manager, "_current_platform", platform_manager.get_platform())


def with_gpus(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0} | ({"GPU": float(gpus)} if gpus else {}))


def test_a_driver_without_a_gpu_starts_what_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform_manager.get_platform().device_name == "cpu"
    with_gpus(monkeypatch, 8)
    require_devices("cuda", 8)
    assert platform_manager.get_platform().device_name == "cuda"
    require_platform("cuda")


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 0, "2 GPUs are asked for, and Ray has 0; `platform=cpu` needs none"),
        ("cuda", 1, "and Ray has 1$"),
        ("cpu", 1, "has 1$"),
    ],
)
def test_a_ray_with_too_few_is_refused(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, message: str) -> None:
    with_gpus(monkeypatch, gpus)
    with pytest.raises(RuntimeError, match=message):
        require_devices(device, 2)


def test_an_accelerator_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_manager, "_current_platform", SimpleNamespace(device_name="npu"))
    with_gpus(monkeypatch, 8)
    with pytest.raises(RuntimeError, match=r"trainer\.device is cuda but verl runs on npu"):
        require_devices("cuda", 8)


def test_a_process_without_a_gpu_is_part_of_a_run_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts the processes of a run with what the tree of its platform says; alone, one would take itself for a CPU's."""
    with initialize_config_module("future_l1_verl.config.rl", version_base=None):
        tree = compose("main", overrides=["platform=cuda"])
    assert platform_manager._detect_platform_name() == "cpu"
    for name, value in tree.ray_kwargs.ray_init.runtime_env.env_vars.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platform_manager, "_current_platform", None)
    assert platform_manager.get_platform().device_name == "cuda"
