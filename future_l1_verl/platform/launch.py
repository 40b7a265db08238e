"""Whether verl runs where the config says it does."""

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
