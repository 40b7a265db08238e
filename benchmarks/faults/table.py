"""``python benchmarks/faults/table.py``: writes docs/faults.md from the runs in ``results``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from outcome import read, row
from run import HARNESSES, names

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
TEXT = """# Faults survived

What was done to the product, how often, and what was lost. Real processes on a CPU with the tiny model; written by
`python benchmarks/faults/table.py` from `benchmarks/faults/results`, where each run is a line with the commit it was made by.
`python benchmarks/faults/run.py NAME` does a fault again; each is a file in `benchmarks/faults/scenarios`.

"Lost" was asked for or was there, and is not there after the same command, where it ended, was given again. "Wrong" is there,
but not what it is when nothing is done. "Seconds" is the longest time until the product had gone on or ended.
A step that is saved and not logged is trained on and in its checkpoint; its metrics and its rollouts are not written down.

| what was done | times | at stake | lost | wrong | seconds | and then |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    sys.path.extend(HARNESSES)
    rows = []
    for name in names():
        if outcomes := read(name):
            scenario = import_module(f"scenarios.{name}")
            rows.append(row(scenario.DONE, scenario.UNIT, outcomes))
    PAGE.write_text(TEXT + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
