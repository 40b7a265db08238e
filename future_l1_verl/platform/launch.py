"""Whether verl runs where the config says it does, and Ray has the devices."""

from __future__ import annotations


def require_platform(device: str) -> None:
    """Raises RuntimeError unless verl found the ``trainer.device`` that the config names."""
    from verl.utils.device import get_device_name

    found = get_device_name()
    if found != device:
        raise RuntimeError(
            f"trainer.device is {device} but verl runs on {found}; choose `platform=cpu` or `platform=cuda`, and see that "
            "future-l1-verl is installed (its entry point in verl.plugins brings the CPU platform)"
        )


def require_devices(device: str, needed: int) -> None:
    """Makes verl take this process for one of a cluster of the ``device`` that the config names, as a driver on a machine
    without GPUs is, and checks that Ray, which runs, has so many.

    Raises RuntimeError if it has fewer, or this machine has an accelerator of another kind.
    """
    import ray
    from verl.plugin.platform import get_platform, set_platform
    from verl.plugin.platform.platform_manager import PlatformRegistry

    if device == "cuda" and get_platform().device_name == "cpu":
        set_platform(PlatformRegistry.get("nvidia")())  # what stock verl takes where it sees no accelerator
    require_platform(device)
    if (found := int(ray.cluster_resources().get("GPU", 0))) < needed:
        hint = "; `platform=cpu` needs none" if found == 0 else ""
        raise RuntimeError(f"{needed} GPUs are asked for, and Ray has {found}{hint}")
