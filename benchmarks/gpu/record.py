"""What a phase measured: cells, each written to its file as soon as it is there."""

from __future__ import annotations

import argparse
import gc
import json
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from one_rank import one_rank

from future_l1_verl.collector import spare_libraries


@dataclass
class Record:
    """The file ``path`` of a phase: ``cells`` by name, those that ``failed`` and those ``skipped`` with the reason, and whether
    all were reached (``complete``). Cells of an earlier run that did not get through are kept."""

    path: Path
    cells: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            self.cells = json.loads(self.path.read_text())["cells"]

    def cell(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measures a cell, unless it is there. One that raises is listed as failed, with its traceback in the log, and the next
        ones go on: what a machine of a few minutes has shown should not be lost with it."""
        if name in self.cells:
            return
        try:
            self.cells[name] = measure()
        except Exception as error:
            traceback.print_exc()
            self.failed[name] = f"{type(error).__name__}: {error}"
        self.write()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason
        self.write()

    def write(self, complete: bool = False) -> None:
        found = {"complete": complete, "cells": self.cells, "failed": self.failed, "skipped": self.skipped}
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(found, indent=1) + "\n")
        unfinished.rename(self.path)


@dataclass(frozen=True)
class Form:
    """``cpu``: everything in its smallest form, which only shows that it works. Checkpoints go to ``folder``."""

    cpu: bool
    folder: Path


def run(measure: Callable[[Record, Form], None], ranks: bool = False) -> None:
    """A phase's ``main``, started by run.py: ``measure`` fills the record. With ``ranks`` this process is the only rank of a
    training job. Exits with 1 if a cell failed."""
    spare_libraries()
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    record = Record(args.out)
    with one_rank() if ranks else nullcontext():
        measure(record, Form(args.cpu, args.out.parent))
    record.write(complete=not record.failed)
    if record.failed:
        raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in record.failed.items()))
