"""``python benchmarks/rl_step.py --run DIR [--png FILE]``: where a step of stage 2 spends its time.

``DIR`` is the tensorboard folder of a run of stage 2 (``TENSORBOARD_DIR``; the quickstart's is
``runs/.../tensorboard/rl``). Phases are verl's timers inside a step, ``other`` what none of them covers; a validation comes
after the step, and is left out. The median is over the steps after the first, which also warms up. Prints a table and a
JSON line, and draws a bar a step.
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

# One after the other, as verl's trainers make them (trainer/ppo/v1/trainer_base.py).
PHASES = (
    "switch_to_rollout", "gen", "switch_to_trainer", "switch_wait", "reward", "old_log_prob", "ref", "values", "adv",
    "update_critic", "update_actor", "save_checkpoint", "update_weights",
)  # fmt: skip


def phases(folder: Path) -> dict[int, dict[str, float]]:
    """Seconds of the phases of each step, ``other`` and the whole ``step`` among them. Raises ValueError if none is timed."""
    curves = {name.removeprefix("timing_s/"): dict(curve) for name, curve in read_curves(folder).items() if "timing_s/" in name}
    if "step" not in curves:
        raise ValueError(f"{folder}: no step of stage 2 is timed there")
    found = {}
    for number, seconds in curves["step"].items():
        step = {name: curves[name][number] for name in PHASES if number in curves.get(name, ())}
        found[number] = step | {"other": seconds - sum(step.values()), "step": seconds}
    return found


def median(steps: dict[int, dict[str, float]]) -> dict[str, float]:
    """Of each phase, over the steps after the first (of all, if there is one); a step that lacks a phase spent 0 there."""
    later = list(steps.values())[1:] or list(steps.values())
    names = dict.fromkeys(name for step in later for name in step)
    return {name: statistics.median(step.get(name, 0.0) for step in later) for name in names}


def draw(steps: dict[int, dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.add_subplot(title="Stage 2: seconds of a step, by phase", xlabel="step", ylabel="s")
    below = dict.fromkeys(steps, 0.0)
    for name in (*PHASES, "other"):
        heights = [step.get(name, 0.0) for step in steps.values()]
        if any(heights):
            axes.bar(list(steps), heights, bottom=list(below.values()), label=name)
            below = {number: below[number] + height for number, height in zip(steps, heights, strict=True)}
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=5, fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    steps = phases(args.run)
    usual = median(steps)
    table = Table("", "seconds", "of the step", title=f"median of {max(len(steps) - 1, 1)} steps")
    for name, seconds in usual.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / usual['step']:.0%}")
    Console(width=128).print(table)
    if args.png:
        draw(steps, args.png)
    print(json.dumps({"median": usual, "steps": steps}))


if __name__ == "__main__":
    main()
