"""``python benchmarks/study/learning.py``: writes docs/results/learning.md and its figure from the files in ``results/tuning``
and ``quickstart``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from page import plot_means, points
from results import Curve, Result, differences, mean, read

ROOT = Path(__file__).parents[2]
TUNING = Path(__file__).parent / "results/tuning"
QUICKSTART = Path(__file__).parent / "quickstart"
PAGE, FIGURE = ROOT / "docs/results/learning.md", ROOT / "docs/images/learning.png"
Arms = dict[str, dict[int, Result]]

# What was changed from the settings that were chosen: learning rate 1e-4, one update a step, 16 questions of 8 rollouts.
TRIED = {
    "tuning/lr=3e-5": "3e-5, as it was",
    "tuning/lr=1e-4": "as chosen",
    "tuning/lr=2e-4": "2e-4",
    "tuning/updates=2": "two updates a step",
    "tuning/n=16": "16 rollouts a question",
    "tuning/masked": "the paper's masking in stage 1, 2e-4",
}
HEAD = """# What stage 2 learns in the quickstart

Written by `python benchmarks/study/learning.py`. The first table is of five seeds, run by the README's first command with
`--seed`, whose test questions were asked once; the second is of what was tried before, on validation questions of other seeds.
"""
WHY = """## Why the curve was flat, and what was changed

- **The reward of the questions that are trained on cannot show it.** The group filter keeps the groups with 10 to 90 % right
  answers, so their accuracy stays near the middle whatever is learnt. `filter/accuracy_before`, of all groups, shows it; the
  report draws it with its moving mean, and with the accuracy on validation questions, which had no part of their own before.
- **Too little was trained, too carefully.** Fifteen steps with a learning rate of 3e-5 hardly move the model: the row "as it
  was" has 40 of them.
- **What stage 1 leaves to be learnt decides what is learnt.** With the paper's masking nothing teaches a span to go on. That of
  the tiny model then ends after one latent, where it never learnt what to write, and stage 2 learns to finish the answer: the
  steepest curve, and reasons that stay broken. The quickstart therefore teaches the decisions (`latent.supervise_decisions`),
  and stage 2 is left with seeing and telling right.
"""
NOTE = """Changes are points of accuracy with 95 % intervals, question by question; that of all seeds is for other seeds and
other questions. A seed has {} test questions."""
TRIED_NOTE = """Accuracy is that of 512 validation questions, greedy, before the first step and after every ten. Groups kept is
a mean over all steps; the columns after it are means of the first and of the last five steps; seconds are of the training with
its validations, with other work on the machine."""


def main() -> None:
    tuning, quickstart = read(TUNING), read(QUICKSTART)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(page(tuning, quickstart)) + "\n")
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.add_subplot(xlabel="step of stage 2", ylabel="accuracy on validation", title="Mean of the seeds")
    plot_means(axes, {TRIED[arm]: tuning[arm] for arm in TRIED if arm in tuning}, "val/all/accuracy")
    figure.savefig(FIGURE, dpi=120)


def page(tuning: Arms, quickstart: Arms) -> list[str]:
    """Returns the lines of the page."""
    lines = [HEAD]
    if quickstart:
        lines += ["## Five seeds", "", *_seeds(quickstart["sft"], quickstart["rl"]), ""]
    return [*lines, WHY, "## What was tried", "", "![validation accuracy by step](../images/learning.png)", "", *_tried(tuning)]


def _seeds(sft: dict[int, Result], rl: dict[int, Result]) -> list[str]:
    splits = [*next(iter(rl.values())).verdicts, "all"]
    lines = [
        f"| seed | after stage 1 | after stage 2 | {' | '.join(splits)} | seconds of stage 2 |",
        "|---|---|---|" + "---|" * (len(splits) + 1),
    ]
    for seed in rl:
        changes = [points(differences({seed: sft[seed]}, {seed: rl[seed]}, split=split)) for split in splits]
        ends = [f"{mean([results[seed].values('right')]):.3f}" for results in (sft, rl)]
        lines.append(f"| {seed} | {' | '.join([*ends, *changes])} | {rl[seed].seconds['training']} |")
    pooled = [points(differences(sft, rl, split=split)) for split in splits]
    ends = [f"{mean([result.values('right') for result in results.values()]):.3f}" for results in (sft, rl)]
    lines.append(f"| all | {' | '.join([*ends, *pooled])} | |")
    first, commits = next(iter(rl.values())), ", ".join(sorted({result.commit for result in rl.values()}))
    versions = ", ".join(f"{name} {number}" for name, number in first.versions.items())
    return [*lines, "", NOTE.format(len(first.values("right"))), "", f"Commits: {commits}; {first.machine}; {versions}."]


def _tried(tuning: Arms) -> list[str]:
    columns = ["groups kept", "entropy", "KL to stage 1", "gradient norm", "latents an answer", "seconds"]
    lines = [f"| what | seeds | accuracy by step | {' | '.join(columns)} |", "|---|---|---|" + "---|" * len(columns)]
    for arm, what in TRIED.items():
        if arm not in tuning:
            continue
        results = list(tuning[arm].values())
        validated = [result.curves["val/all/accuracy"] for result in results]
        steps = " / ".join(
            f"{np.mean(values):.3f}" for values in zip(*([value for _, value in c] for c in validated), strict=True)
        )
        ways = [
            _way(results, tag) for tag in ("actor/entropy", "actor/kl_loss", "actor/grad_norm", "latents/latents_per_answer")
        ]
        kept = f"{np.mean([value for result in results for _, value in result.curves['filter/keep_rate']]):.2f}"
        seconds = f"{np.mean([result.seconds['training'] for result in results]):.0f}"
        lines.append(f"| {what} | {len(results)} | {steps} | {kept} | {' | '.join(ways)} | {seconds} |")
    return [*lines, "", TRIED_NOTE]


def _way(results: list[Result], tag: str) -> str:
    curves = [result.curves[tag] for result in results]
    return " to ".join(f"{np.mean([_mean(curve[part]) for curve in curves]):.2f}" for part in (slice(5), slice(-5, None)))


def _mean(curve: Curve) -> float:
    return float(np.mean([value for _, value in curve]))


if __name__ == "__main__":
    main()
