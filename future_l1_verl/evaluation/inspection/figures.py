"""Figures of a run's answers and latents."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from future_l1_verl.evaluation.runs import Record
from future_l1_verl.rewards.latent import adjacent_cosines
from future_l1_verl.statistics import bootstrap_interval, columns

MOST = 5  # spans; answers with more are counted here too
NAMES = [*map(str, range(MOST)), f"{MOST}+"]
# Okabe and Ito's colours, distinct in any kind of colour vision; grey for none.
COLOURS = ("#bbbbbb", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
ON_COLOURS = ("black", "white", "black", "white", "black", "white")
MARKERS = "osD^v"
HIGHEST_MARK = 5
METHOD_NAMES = {"pca": "PCA", "tsne": "t-SNE"}


def spans_per_split(records: Sequence[Record]) -> Figure:
    """Draws a donut per split: the shares of its answers by number of spans."""
    splits = sorted({record.split for record in records})
    side = math.ceil(len(splits) ** 0.5)
    rows = math.ceil(len(splits) / side)
    figure = Figure(figsize=(2.4 * side + 1, 2.5 * rows), layout="constrained")
    for place, split in enumerate(splits, start=1):
        counts = Counter(_bin(record) for record in records if record.split == split)
        axes = figure.add_subplot(rows, side, place)
        total = counts.total()
        # Labels of thin slices would overlap.
        shares = [f"{counts[key] / total:.0%}" if counts[key] >= 0.06 * total else "" for key in range(MOST + 1)]
        _, texts = axes.pie(
            [counts[key] for key in range(MOST + 1)],
            labels=shares,
            colors=COLOURS,
            startangle=90,
            counterclock=False,
            labeldistance=0.78,
            wedgeprops={"width": 0.45, "edgecolor": "white"},
        )
        for text, colour in zip(texts, ON_COLOURS, strict=True):
            text.set(color=colour, ha="center", va="center", fontsize=9)
        axes.set_title(split, fontsize=11)
        axes.text(0, 0, f"n = {total}", ha="center", va="center")
    handles = [Patch(color=colour) for colour in COLOURS]
    figure.legend(handles, NAMES, loc="outside right center", title="spans", frameon=False)
    return figure


def score_by_spans(records: Sequence[Record]) -> Figure:
    """Draws each score's mean over answers with a verdict, by number of spans, with 95 % bootstrap intervals."""
    judged = [record for record in records if record.scores is not None]
    scores = columns([record.scores for record in judged])
    figure = Figure(figsize=(1 + 4.5 * len(scores), 3.6), layout="constrained")
    for place, (name, column) in enumerate(scores.items(), start=1):
        by_spans = defaultdict(list)
        for record, value in zip(judged, column, strict=True):
            by_spans[_bin(record)].append(value)
        values = dict(sorted(by_spans.items()))
        means = [float(np.mean(of)) for of in values.values()]
        low, high = zip(*(bootstrap_interval(of, seed=0) for of in values.values()), strict=True)
        highest = 1 if name == "accuracy" else HIGHEST_MARK
        axes = figure.add_subplot(1, len(scores), place, ylim=(0, highest), ylabel=f"{name} (95 % interval)")
        places = range(len(values))
        errors = [np.subtract(means, low).tolist(), np.subtract(high, means).tolist()]
        axes.bar(places, means, 0.7, yerr=errors, capsize=4, color=[COLOURS[key] for key in values], ecolor="black")
        axes.set_xticks(places, [f"{NAMES[key]}\nn = {len(of)}" for key, of in values.items()])
        axes.set(xlabel="spans of the answer", xlim=(-0.6, max(len(values), 3) - 0.4))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def latent_map(method: str, points: np.ndarray, order: Sequence[int]) -> Figure:
    """Draws the ``points [N, 2]`` of a ``method``; ``order`` is the number of each latent's span in its answer, from 1."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.add_subplot(xlabel=f"{METHOD_NAMES[method]} 1", ylabel=f"{METHOD_NAMES[method]} 2", xticks=[], yticks=[])
    key = np.minimum(order, MOST)
    for number in range(1, MOST + 1):
        chosen = points[key == number]
        if len(chosen):
            label = f"{NAMES[number]} ({len(chosen)})"
            axes.scatter(
                *chosen.T, s=14, alpha=0.7, linewidths=0, color=COLOURS[number], marker=MARKERS[number - 1], label=label
            )
    figure.legend(title="span (latents)", loc="outside right center", frameon=False, markerscale=1.6)
    return figure


def adjacent_cosine(answers: Sequence[Sequence[Tensor]]) -> Figure:
    """Draws a histogram of the cosines of adjacent spans' means; ``answers`` are the latents ``[T, H]`` of the spans of each
    answer, and at least one answer has two spans."""
    cosines = np.concatenate([adjacent_cosines(spans).clamp(-1, 1).numpy() for spans in answers])
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot(xlabel="cosine of the mean latents of adjacent spans", ylabel="pairs of spans")
    axes.hist(cosines, bins=np.linspace(np.floor(min(cosines.min(), 0.9) * 10) / 10, 1, 41), color="#0072b2")
    axes.axvline(cosines.mean(), color="#d55e00", linestyle="--", label=f"mean {cosines.mean():.3f}, {len(cosines)} pairs")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _bin(record: Record) -> int:
    return min(len(record.spans), MOST)
