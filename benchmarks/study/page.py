"""``python benchmarks/study/page.py``: writes docs/results/study.md and its figures from the files in ``results``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Result, differences, interval, mean, read, seeds_needed, share_of_questions

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs/results/study.md"
Arms = dict[str, dict[int, Result]]

# The arms in the order of the paper's table (paper section 6), with its average accuracy on FutureBench in points.
PAPER = {
    "untrained": 61.0,
    "sft_text_only": 65.0,
    "text_only_grpo": 77.7,
    "text_only_dapo": 76.3,
    "sft_random": 68.4,
    "sft_curated": 73.2,
    "sft": 73.2,
    "grpo": 82.8,
    "depo": 81.1,
    "dapo": 83.8,
    "dapo+ctr": 84.5,
    "dapo+div": 84.8,
    "la_dapo": 85.4,
}
# Ours beside them: stage 1 with the paper's masking of the decisions to go on within a span, which the other arms are taught.
ARMS = (*PAPER, "sft_masked", "la_dapo_masked")
# What the paper's table says of two arms: the second is better.
CLAIMS = (
    ("sft_text_only", "sft", "latents in stage 1"),
    ("sft_random", "sft_curated", "curation by visual gain"),
    ("sft_text_only", "text_only_dapo", "stage 2 without latents"),
    ("sft", "la_dapo", "stage 2 with latents"),
    ("text_only_grpo", "grpo", "latents with GRPO"),
    ("text_only_dapo", "dapo", "latents with DAPO"),
    ("grpo", "dapo", "DAPO instead of GRPO"),
    ("depo", "dapo", "DAPO instead of DePO"),
    ("dapo", "dapo+ctr", "the outcome-contrastive reward"),
    ("dapo", "dapo+div", "the temporal-diversity reward"),
    ("dapo", "la_dapo", "both rewards"),
)
SWEEPS = {
    "lambda": ("λ, the weight of the latent loss", "1", "sft"),
    "l_max": ("L_max, latents a span at most", "4", "sft"),
    "lambda_c": ("λ_c, the weight of R_ctr", "0.2", "la_dapo"),
    "lambda_d": ("λ_d, the weight of R_div", "0.1", "la_dapo"),
}
MOST_SEEDS = 1000  # above which how many seeds it would take is not said
SAME, OPPOSITE, UNKNOWN = "as in the paper", "the other way round", "cannot be told"
INTRODUCTION = """# The paper's table with a tiny model

Written by `python benchmarks/study/page.py` from `benchmarks/study/results`; `bash recipes/study.sh` makes those files, one arm
and seed after the other. A seed is a quickstart, whose two stages are the arms `sft` and `la_dapo`: it has its own clips,
questions, pretrained model and trainings, and all its arms share the first three. Each arm has the same number of steps, and
the settings of the quickstart, which were chosen on validation questions of other seeds (docs/results/learning.md); no arm was
tuned by itself. Each arm was asked the test questions once, after that.

Intervals are of 95 % and for other seeds and other questions (hierarchical bootstrap); of one seed they are for other questions
alone. The model has 1.8 million parameters and watches moving shapes: the page tells what the parts of the method are worth
here, not what they are worth to a model of eight billion.
"""


def main() -> None:
    arms = read(RESULTS)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(page(arms)) + "\n")
    tested = [arm for arm in ARMS if arm in arms]
    _save(_forest(arms, tested), "study_accuracy.png")
    if trained := [arm for arm in tested if _has(arms[arm], "val/all/accuracy")]:
        _save(_learning(arms, trained), "study_learning.png")


def page(arms: Arms) -> list[str]:
    """Returns the lines of the page."""
    tested = [arm for arm in ARMS if arm in arms]
    lines = [INTRODUCTION, *_made_by(arms), ""]
    lines += ["## In short", "", *_in_short(arms), ""]
    lines += ["## Accuracy", "", "![accuracy by arm](../images/study_accuracy.png)", "", *_accuracy(arms, tested), ""]
    lines += ["## What the paper's table says, and what this one says", "", *_claims(arms), ""]
    if "dapo" in arms:
        lines += ["## Against DAPO, by split", "", *_against(arms, tested, "dapo"), ""]
    lines += ["## How the answers come about", "", *_answers(arms, tested), ""]
    if any(_has(arms[arm], "val/all/accuracy") for arm in tested):
        lines += ["## Curves of stage 2", "", "![validation accuracy by step](../images/study_learning.png)", ""]
    for sweep, (title, default, base) in SWEEPS.items():
        if rows := _sweep(arms, sweep, default, base):
            lines += [f"## {title}", "", *rows, ""]
    return lines


def _made_by(arms: Arms) -> list[str]:
    every = [result for seeds in arms.values() for result in seeds.values()]
    kinds = {
        "Commits": sorted({result.commit for result in every}),
        "machines": sorted({result.machine for result in every}),
        "versions": sorted({f"{name} {number}" for result in every for name, number in result.versions.items()}),
    }
    hours = sum(result.seconds.get(stage, 0) for result in every for stage in ("training", "evaluation")) / 3600
    return ["; ".join(f"{kind}: {', '.join(values)}" for kind, values in kinds.items()) + f"; {hours:.1f} hours in all."]


def _splits(arms: Arms, names: Sequence[str]) -> list[str]:
    return [*next(iter(arms[names[0]].values())).verdicts, "all"]


def _accuracy(arms: Arms, tested: Sequence[str]) -> list[str]:
    splits = _splits(arms, tested)
    lines = [f"| arm | seeds | {' | '.join(splits)} | the paper's average |", "|---|---|" + "---|" * (len(splits) + 1)]
    for arm in tested:
        cells = [_cell([result.values("right", split) for result in arms[arm].values()]) for split in splits]
        lines.append(f"| {arm} | {len(arms[arm])} | {' | '.join(cells)} | {_paper(arm)} |")
    first = next(iter(arms[tested[0]].values()))
    counts = ", ".join(f"{len(first.values('right', split))} of {split}" for split in splits)
    return [*lines, "", f"Questions a seed: {counts}."]


def _paper(arm: str) -> str:
    return f"{PAPER[arm]:.1f} %" if arm in PAPER else "-"


@dataclass(frozen=True)
class Compared:
    """A claim of the paper's table: ``b`` is better than ``a``. ``values`` are the differences, ``[questions]`` per seed."""

    a: str
    b: str
    what: str
    values: list[np.ndarray]

    @property
    def paper(self) -> float:
        return PAPER[self.b] - PAPER[self.a]


def _compared(arms: Arms) -> list[Compared]:
    both = [Compared(a, b, what, differences(arms[a], arms[b])) for a, b, what in CLAIMS if a in arms and b in arms]
    return [claim for claim in both if claim.values]


def _in_short(arms: Arms) -> list[str]:
    """A line for each way in which the paper's claims went here."""
    found: dict[str, list[Compared]] = {SAME: [], OPPOSITE: [], UNKNOWN: []}
    for claim in _compared(arms):
        found[way(claim.values, claim.paper)].append(claim)
    lines = []
    for kind, claims in found.items():
        told = [f"{claim.what}, {points(claim.values)}{_few(claim.values)}" for claim in claims]
        lines.append(f"- **{kind[0].upper()}{kind[1:]}**: {'; '.join(told) or 'nothing'}.")
    return lines


def _claims(arms: Arms) -> list[str]:
    lines = ["| what | seeds | the paper, points | here, points (95 %) | verdict |", "|---|---|---|---|---|"]
    claims = _compared(arms)
    for claim in claims:
        cells = (f"{claim.paper:+.1f}", points(claim.values), verdict(claim.values, claim.paper))
        lines.append(f"| {claim.what}: {claim.b} less {claim.a} | {len(claim.values)} | {' | '.join(cells)} |")
    unknown = [claim.values for claim in claims if way(claim.values, claim.paper) == UNKNOWN and len(claim.values) > 1]
    if unknown:
        share = np.median([share_of_questions(values) for values in unknown])
        lines += [
            "",
            f"In what cannot be told, the drawing of questions makes {100 * share:.0f} % of the variance between seeds",
            "(median), the models make the rest: it takes more seeds, and more questions to these seeds would not tell.",
        ]
    return lines


def way(values: Sequence[np.ndarray], paper: float) -> str:
    """Returns which way the differences ``values``, an array of questions per seed, go, beside the ``paper``'s."""
    low, high = interval(values)
    if low <= 0 <= high:
        return UNKNOWN
    return SAME if (low > 0) == (paper > 0) else OPPOSITE


def verdict(values: Sequence[np.ndarray], paper: float) -> str:
    """Returns `way`, with how many seeds would tell or how few have told."""
    found = way(values, paper)
    if found != UNKNOWN:
        return found + _few(values)
    if not (needed := seeds_needed(values)):
        return found
    seeds = f"more than {MOST_SEEDS}" if needed > MOST_SEEDS else f"about {needed}"
    return f"{found}; a difference as large as this would take {seeds} seeds of {len(values[0])} questions"


def _few(values: Sequence[np.ndarray]) -> str:
    """A warning for intervals that see too little of how seeds scatter."""
    return {1: ", of one seed", 2: ", of two seeds"}.get(len(values), "")


def _against(arms: Arms, tested: Sequence[str], base: str) -> list[str]:
    splits = _splits(arms, tested)
    lines = [f"| arm | seeds | {' | '.join(splits)} |", "|---|---|" + "---|" * len(splits)]
    for arm in tested:
        if arm != base and (common := arms[arm].keys() & arms[base].keys()):
            cells = [points(differences(arms[base], arms[arm], split=split)) for split in splits]
            lines.append(f"| {arm} | {len(common)} | {' | '.join(cells)} |")
    return [*lines, "", "Points of accuracy, with 95 % intervals; question by question, of the seeds that both have."]


def _answers(arms: Arms, tested: Sequence[str]) -> list[str]:
    """Spans, tokens, reasoning, and what other latents or none do to the answers."""
    lines = [
        "| arm | spans 1- / 2- / 3-hop | latents | tokens | parsed | reasoning true | swap, points | zero, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in tested:
        results = list(arms[arm].values())
        spans = " / ".join(f"{_mean_of(results, 'spans', [split]):.2f}" for split in ("1-hop", "2-hop", "3-hop"))
        means = [f"{_mean_of(results, name, results[0].means):.1f}" for name in ("latents", "tokens")]
        shares = [f"{mean([result.values(judged) for result in results]):.3f}" for judged in ("parsed", "reasoning")]
        changed = [_intervention(results, kind) for kind in ("swap", "zero")]
        lines.append(f"| {arm} | {spans} | {' | '.join([*means, *shares, *changed])} |")
    return [
        *lines,
        "",
        "Swap: each answer goes on with latents of another; zero: with none. Points of accuracy less than left alone, of the",
        "first questions of the set, of which more are 1-hop than 3-hop.",
    ]


def _intervention(results: Sequence[Result], kind: str) -> str:
    if not all(kind in verdicts for result in results for verdicts in result.verdicts.values()):
        return "-"
    changed = [result.values(kind) - result.values("right") for result in results]
    return points([of_seed[~np.isnan(of_seed)] for of_seed in changed])


def _mean_of(results: Sequence[Result], name: str, splits: Sequence[str]) -> float:
    return float(np.mean([result.means[split][name] for result in results for split in splits]))


def _sweep(arms: Arms, sweep: str, default: str, base: str) -> list[str]:
    """A row per value, that of the other arms among them; of the seeds that all have."""
    swept = {arm.split("=")[1]: arms[arm] for arm in arms if arm.startswith(f"{sweep}=")}
    if not swept or base not in arms:
        return []
    values = swept | {default: arms[base]}
    common = set.intersection(*(set(seeds) for seeds in values.values()))
    lines = ["| value | seeds | accuracy (95 %) | latents an answer |", "|---|---|---|---|"]
    for value in sorted(values, key=float):
        results = [values[value][seed] for seed in sorted(common)]
        latents = _mean_of(results, "latents", results[0].means)
        lines.append(f"| {value} | {len(common)} | {_cell([result.values('right') for result in results])} | {latents:.1f} |")
    return lines


def _cell(values: Sequence[np.ndarray]) -> str:
    low, high = interval(values)
    return f"{mean(values):.3f} ({low:.3f} to {high:.3f})"


def points(values: Sequence[np.ndarray]) -> str:
    """The mean of ``values``, an array of questions per seed, in points, with its 95 % interval."""
    low, high = interval(values)
    return f"{100 * mean(values):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _has(seeds: dict[int, Result], tag: str) -> bool:
    return any(tag in result.curves for result in seeds.values())


def _forest(arms: Arms, tested: Sequence[str]) -> Figure:
    figure, axes = _figure("accuracy, all questions", height=0.35 * len(tested) + 1.2)
    for row, arm in enumerate(reversed(tested)):
        values = [result.values("right") for result in arms[arm].values()]
        low, high = interval(values)
        axes.plot([low, high], [row, row], color="tab:blue")
        axes.plot([of_seed.mean() for of_seed in values], [row] * len(values), "|", color="tab:grey", markersize=10)
        axes.plot(mean(values), row, "o", color="tab:blue")
    axes.set_yticks(range(len(tested)), [f"{arm} ({len(arms[arm])})" for arm in reversed(tested)])
    axes.set_title("Mean, 95 % interval and each seed")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _learning(arms: Arms, trained: Sequence[str]) -> Figure:
    figure, axes = _figure("step of stage 2")
    plot_means(axes, {arm: arms[arm] for arm in trained}, "val/all/accuracy")
    axes.set(ylabel="accuracy on validation", title="Mean of the seeds")
    return figure


def plot_means(axes: Axes, arms: Arms, tag: str, **style: str) -> None:
    """Draws the mean of a curve over the seeds of each arm; ``style`` is matplotlib's."""
    for arm, seeds in arms.items():
        curves = [dict(result.curves[tag]) for result in seeds.values() if tag in result.curves]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [np.mean([curve[step] for curve in curves]) for step in steps]
        axes.plot(steps, means, marker=".", label=f"{arm} ({len(curves)})", **style)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _figure(label: str, height: float = 4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="tight")
    return figure, figure.add_subplot(xlabel=label)


def _save(figure: Figure, name: str) -> None:
    figure.savefig(ROOT / "docs/images" / name, dpi=120)


if __name__ == "__main__":
    main()
