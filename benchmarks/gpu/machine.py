"""``python benchmarks/gpu/machine.py``: date, device and versions, as a JSON line."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "transformers", "verl", "vllm", "ray", "TransferQueue", "tensordict", "flash-attn")


def installed(package: str) -> str | None:
    """Returns the version, or None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    found = {"date": datetime.date.today().isoformat(), "python": platform.python_version(), "cores": os.cpu_count()}
    found |= {package: installed(package) for package in PACKAGES}
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        found |= {"device": device.name, "device_memory": device.total_memory}
    else:
        found["device"] = platform.processor() or platform.machine()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
