"""``python benchmarks/rl_step.py NAME=DIR [NAME=DIR ...] --out FILE.png``: where the time of a step of stage 2 goes.

``DIR`` is the tensorboard folder of a run (the quickstart's is ``RUN/tensorboard/rl``), in whichever of verl's modes. Prints
a table and a JSON line with the median seconds of each phase (verl's ``timing_s``) over the steps after the first, which waits
for compilers and caches, and draws them as one bar a run. What no phase accounts for is ``other``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from future_l1_verl.evaluation.curves import read_curves

# What verl calls them, in the order of a step (trainer_base.py); validation comes after it and counts to none.
PHASES = {
    "rollout": "gen", "reward": "reward", "old log-probs": "old_log_prob", "reference": "ref", "advantages": "adv",
    "update of the actor": "update_actor", "checkpoint": "save_checkpoint", "weights to the rollout": "update_weights",
}  # fmt: skip
COLOURS = ("#4c78a8", "#9ecae9", "#f58518", "#ffbf79", "#54a24b", "#b279a2", "#9d755d", "#e45756", "#bab0ac")


def phases(folder: Path) -> dict[str, float]:
    """Median seconds of each phase, of ``other`` and of the ``step``, and the number of ``steps`` that they are of.

    Raises ValueError if fewer than two steps were logged.
    """
    curves = {tag: dict(points) for tag, points in read_curves(folder).items()}
    step = curves.get("timing_s/step", {})
    steps = sorted(step)[1:]
    if not steps:
        raise ValueError(f"{folder}: {len(step)} steps with timing_s/step; two are needed, the first is left out")
    found = {name: [curves.get(f"timing_s/{key}", {}).get(number, 0.0) for number in steps] for name, key in PHASES.items()}
    found["other"] = [step[number] - sum(values[i] for values in found.values()) for i, number in enumerate(steps)]
    medians = {name: statistics.median(values) for name, values in found.items()}
    return medians | {"step": statistics.median(step[number] for number in steps), "steps": len(steps)}


def draw(runs: dict[str, dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(9, 1.6 + 0.6 * len(runs)), layout="tight")
    axes = figure.add_subplot(title="A step of stage 2, in seconds (medians)")
    left = [0.0] * len(runs)
    for name, colour in zip([*PHASES, "other"], COLOURS, strict=True):
        values = [run[name] for run in runs.values()]
        axes.barh(list(runs), values, left=left, label=name, color=colour)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncol=5, fontsize="small")
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--out", type=Path, required=True, help="the figure")
    args = parser.parse_args()
    runs = {name: phases(Path(folder)) for name, folder in (run.split("=", 1) for run in args.runs)}
    draw(runs, args.out)
    table = Table("phase [s]", *runs)
    for name in [*PHASES, "other", "step"]:
        table.add_row(name, *(f"{run[name]:.3f} ({run[name] / run['step']:.0%})" for run in runs.values()))
    Console(width=100).print(table)
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
