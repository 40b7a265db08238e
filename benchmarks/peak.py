"""The most memory that something takes while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """Bytes: what was taken ``before``, and how much more there was at most."""

    before: int
    above: int


def peak(way: Callable[[], object]) -> Peak:
    """Returns the memory of ``way()``: what torch allocated on the GPU, or on a CPU what this process had resident (VmHWM). The
    second is too little where memory that was freed earlier is used again: such a process should be a fresh one."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is resident now
    read = torch.cuda.max_memory_allocated if on_gpu else _high_water
    before = read()
    way()
    return Peak(before, read() - before)


def _high_water() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
