"""Makes verl use the device of the config, by verl's own settings, and checks that Ray has enough devices."""

import os
import sys
from importlib import import_module

MODULE = "future_l1_verl.platform.verl_cpu"


def take_platform(device: str) -> None:
    """Tells verl that it runs on a CPU if ``device`` is ``cpu``, here and in processes that are started from here.

    verl loads ``VERL_USE_EXTERNAL_MODULES`` when it is imported (verl/__init__.py), and reads ``VERL_PLATFORM`` when its
    device is first requested, which must be after this call. Processes of a running Ray get both from
    config/rl/platform/cpu.yaml. Any other device is found by verl.
    """
    if device == "cpu":
        os.environ["VERL_PLATFORM"] = "cpu"
        modules = [module for module in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if module]
        os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join(dict.fromkeys([*modules, MODULE]))
        if "verl" in sys.modules:  # hydra imports it to find its config trees
            import_module(MODULE)


def require_accelerator(device: str, address: str | None = None) -> None:
    """Raises ValueError if ``device`` is ``cuda``, this machine has none, and no cluster that may have some is named by the
    ``address`` of a Ray, or by RAY_ADDRESS, which `ray.init` reads."""
    import torch

    if device == "cuda" and not torch.cuda.is_available() and not (address or os.environ.get("RAY_ADDRESS")):
        raise ValueError("no GPU found: add platform=cpu, or see what `future-l1 doctor` says")


def require_platform(device: str) -> None:
    """Raises RuntimeError unless verl found the ``trainer.device`` that the config names."""
    from verl.utils.device import get_device_name

    found = get_device_name()
    if found != device:
        raise RuntimeError(f"trainer.device is {device} but verl runs on {found}; choose `platform=cpu` or `platform=cuda`")


def require_devices(device: str, needed: int) -> None:
    """Raises RuntimeError if verl found another ``device`` than the config names, or if the running Ray has too few devices.

    A driver without an accelerator belongs to a cluster with accelerators, and verl treats its device as ``cuda``.
    """
    import ray

    require_platform(device)
    if (found := int(ray.cluster_resources().get("GPU", 0))) < needed:
        hint = "; `platform=cpu` needs none" if found == 0 else ""
        raise RuntimeError(f"{needed} GPUs are asked for, and Ray has {found}{hint}")
