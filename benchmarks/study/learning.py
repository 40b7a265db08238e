"""``python benchmarks/study/learning.py``: writes docs/results/learning.md and its figure from the files in ``tuning`` and,
of the quickstart's two stages, ``results``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from page import plot_means, points
from results import Curve, Result, differences, mean, read

ROOT = Path(__file__).parents[2]
TUNING = Path(__file__).parent / "tuning"
RESULTS = Path(__file__).parent / "results"
PAGE, FIGURE = ROOT / "docs/results/learning.md", ROOT / "docs/images/learning.png"
QUICKSTART = ROOT / "docs/images/quickstart_learning.png"
SETTINGS = ROOT / "future_l1_verl/config/rl/main.yaml"  # those of the quickstart, but for what its recipe names
Arms = dict[str, dict[int, Result]]

# In order. The first set had four questions about the first hit to one about the third; "captions to read for" end in words of
# their request.
TRIED = {
    "first-set,lr=1e-4": "first set of questions",
    "first-set,lr=2e-4": "the same, 2e-4",
    "first-set,no-r-div": "the same, without R_div",
    "balanced": "as many questions of each kind",
    "places": "and reasons that count the hits",
    "read": "and captions to read for",
    "read,lr=5e-4": "the same, 5e-4",
    "read,sft_steps=100": "the same, 100 steps of stage 1",
    "read,masked": "the same, the paper's masking",
    "hasty": "the same, a teacher whose reasons stop after the first hit (not kept)",
    "mistaken,sft_steps=150": "a teacher who answers the first hit",
    "mistaken,sft_steps=250": "the same, 250 steps of stage 1",
    "quickstart,20": "300 steps of pretraining, 220 of stage 1",
    "quickstart,15": "the same, 15 steps of stage 2",
    "quickstart,mistaken=0.5": "the same, a teacher who errs in half of the later hits, not in 60 % (stopped, not kept)",
    "quickstart,18": "280 steps of pretraining, 18 of stage 2: as chosen",
}
DRAWN = (
    "first-set,lr=1e-4",
    "read",
    "read,lr=5e-4",
    "read,masked",
    "quickstart,20",
    "quickstart,18",
)
PARTS = ("accuracy", "format", "contrastive", "diversity")
HEAD = """# What stage 2 learns in the quickstart

Written by `python benchmarks/study/learning.py`. The first table is of five seeds, run by the README's first command with
`--seed`, whose test questions each of the two models was asked once; the second is of what was tried before, on validation
questions of other seeds.
"""
WHY = """## Why the curve was flat, and what was changed

1. **The reward of the questions that are trained on cannot show it.** The group filter keeps the groups with 10 to
   90 % right answers, so their accuracy stays near the middle whatever is learnt. `filter/accuracy_before`, of all
   groups, shows it; the report draws it with its moving mean, and with the accuracy on validation questions, which
   had no part of their own before.
2. **The tiny model did not read its question.** It named the same object whatever was asked, and gave as many reasons
   as most answers have. What stage 2 then learnt was another number of reasons for all questions: good for some seeds
   and bad for others. Captions had one request, so nothing in its pretraining told it to look at words. Now a request
   ends in words that the caption repeats; and questions, as many of each kind, and reasons count the hits in the same
   words.
3. **Seeing better is more than stage 2 can learn in minutes.** It learns from 16 questions a step, of which it is
   told right or wrong, where stage 1 learns from 32 whose answers it is shown. A higher learning rate does not make up
   for it: with 5e-4 ten steps undo what stage 1 has learnt.
4. **Something has to be left that outcomes can tell.** With the paper's masking it is whether a span goes on: nothing
   in stage 1 teaches that, spans of the tiny model end after one latent, and it never learnt what to write there. Its
   curve is the steepest, but its answers stay out of form, for it repairs their ends alone. The quickstart therefore
   teaches those decisions (`latent.supervise_decisions`), and has a teacher of stage 1 who errs: it foresees all
   hits, and then often answers the first. Stage 1 imitates that. Stage 2, which is told the truth, learns to answer
   what was asked.
"""
NOTE = """Changes are points of accuracy with 95 % intervals, question by question; that of all seeds is for other seeds and
other questions. A seed has {} test questions. "Sampled in training" is the accuracy of the answers of the first and of the
last six steps, at temperature 1 and before the filter, on other questions in each step."""
TRIED_NOTE = """Learning rate 1e-4 where nothing is said, one update a step, with 16 questions of 8 answers; stage 1 has 200
steps until captions to read for, and then 150. A run was made by the recipes of its commit, with the steps and the
overrides that its row names. Accuracy is that of the validation questions of the seed, greedy. "Kept"
is the share of groups that the filter keeps; "spread" the standard deviations of the four weighted parts of the reward
(accuracy, format, R_ctr, R_div), what advantages are made of. The columns after it are means of the first and of the
last five steps."""


def main() -> None:
    tuning, results = read(TUNING), read(RESULTS)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(page(tuning, results)) + "\n")
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.add_subplot(xlabel="step of stage 2", ylabel="accuracy on validation", title="What was tried")
    plot_means(axes, {TRIED[arm]: tuning[arm] for arm in DRAWN}, "val/all/accuracy")
    figure.savefig(FIGURE, dpi=120)
    if "la_dapo" in results:
        _by_seed(results["la_dapo"]).savefig(QUICKSTART, dpi=120)


def page(tuning: Arms, results: Arms) -> list[str]:
    """Returns the lines of the page."""
    lines = [HEAD]
    if "la_dapo" in results:
        lines += [
            "## Five seeds",
            "",
            "![validation accuracy by step and seed](../images/quickstart_learning.png)",
            "",
            *_seeds(results["sft"], results["la_dapo"]),
            "",
        ]
    return [*lines, WHY, "## What was tried", "", "![validation accuracy by step](../images/learning.png)", "", *_tried(tuning)]


def _seeds(sft: dict[int, Result], rl: dict[int, Result]) -> list[str]:
    splits = [*next(iter(rl.values())).verdicts, "all"]
    names = ["seed", "after stage 1", "after stage 2", *splits, "sampled in training", "reasons true", "minutes: stage 2, all"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, seeds in [*((str(seed), [seed]) for seed in rl), ("all", [*rl])]:
        before, after = ({seed: results[seed] for seed in seeds} for results in (sft, rl))
        changes = [points(differences(before, after, split=split)) for split in splits]
        right, true = (
            [f"{mean([result.values(judged) for result in results.values()]):.3f}" for results in (before, after)]
            for judged in ("right", "reasoning")
        )
        sampled = [[value for _, value in result.curves["filter/accuracy_before"]] for result in after.values()]
        ends = [f"{np.mean([curve[part] for curve in sampled]):.3f}" for part in (slice(6), slice(-6, None))]
        minutes = [np.mean([result.seconds[stage] for result in after.values()]) / 60 for stage in ("training", "quickstart")]
        cells = [name, *right, *changes, " to ".join(ends), " to ".join(true), f"{minutes[0]:.1f}, {minutes[1]:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    first, commits = next(iter(rl.values())), ", ".join(sorted({result.commit for result in rl.values()}))
    versions = ", ".join(f"{name} {number}" for name, number in first.versions.items())
    made = f"Commits: {commits}; {first.machine}; {versions}."
    return [*lines, "", NOTE.format(len(first.values("right"))), "", _latents(sft), "", made]


def _by_seed(seeds: dict[int, Result]) -> Figure:
    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.add_subplot(xlabel="step of stage 2", ylabel="accuracy on validation", title="The quickstart with five seeds")
    for seed, result in seeds.items():
        axes.plot(*zip(*result.curves["val/all/accuracy"], strict=True), alpha=0.5, label=f"seed {seed}")
    plot_means(axes, {"mean": seeds}, "val/all/accuracy", color="black")
    return figure


def _latents(sft: dict[int, Result]) -> str:
    ratio, retrieval, chance = (
        [result.curves[f"val/latent_{name}"][-1][1] for result in sft.values()]
        for name in ("error_ratio", "retrieval", "retrieval_chance")
    )
    return (
        f"After stage 1 the error of held-out latents is {min(ratio):.2f} to {max(ratio):.2f} of the mean embedding's, and "
        f"{100 * min(retrieval):.0f} to {100 * max(retrieval):.0f} % of them lie nearest to their own frame's embedding "
        f"(chance: {100 * max(chance):.0f} %)."
    )


def _tried(tuning: Arms) -> list[str]:
    columns = ["1-hop", "2-hop", "3-hop", "interp", "kept", "spread", "in form", "spans an answer", "entropy", "gradient norm"]
    lines = [
        f"| what | seed | commit | questions | steps | accuracy | {' | '.join(columns)} |",
        "|---|---|---|---|" + "---|" * len(columns),
    ]
    weights = OmegaConf.load(SETTINGS).rewards
    for arm, what in TRIED.items():
        for seed, result in tuning[arm].items():
            curves = result.curves
            steps = " / ".join(str(step) for step, _ in curves["val/all/accuracy"])
            accuracy = " / ".join(f"{value:.3f}" for _, value in curves["val/all/accuracy"])
            splits = [f"{c[0][1]:.2f} to {c[-1][1]:.2f}" for c in (curves[f"val/{split}/accuracy"] for split in columns[:4])]
            kept = f"{_mean(curves['filter/keep_rate']):.2f}"
            spread = " / ".join(f"{weights[part] * _mean(curves[f'rewards/{part}/std']):.2f}" for part in PARTS)
            tags = ("rewards/format/mean", "latents/spans_per_answer", "actor/entropy", "actor/grad_norm")
            ways = [_way(curves[tag]) for tag in tags]
            asked = f"{curves['val/all/n'][0][1]:.0f}"
            cells = [what, str(seed), result.commit, asked, steps, accuracy, *splits, kept, spread, *ways]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", TRIED_NOTE]


def _way(curve: Curve) -> str:
    return f"{_mean(curve[:5]):.2f} to {_mean(curve[-5:]):.2f}"


def _mean(curve: Curve) -> float:
    return float(np.mean([value for _, value in curve]))


if __name__ == "__main__":
    main()
