"""The card of a data set that ``build`` wrote: counts beside the paper's (section 3), as JSON, README and figures."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from future_l1_verl.files import write_json
from future_l1_verl.tables import markdown

# Future-L1-50K: categories are shares, the others thousands of rows.
PAPER: dict[str, dict[str, float]] = {
    "category": {"instructional": 0.547, "predictive": 0.336, "camera": 0.117},
    "gain": {"3": 14.1, "4": 11.3, "5": 8.2, "6": 6.3, "7": 5.1, "8": 5.1},
    "future_frames": {"1": 31.3, "2": 16.6, "3": 1.7},
}
TITLES = {
    "category": "category",
    "gain": "rollouts more correct with future frames",
    "future_frames": "future frames per example",
}
TEXTS = ("question", "answer", "reasoning")
FILES = ("sft_train", "sft_val", "rl_train", "rl_val")

HEAD = """---
pretty_name: {name}
configs:
- config_name: sft
  data_files:
  - split: train
    path: sft_train.parquet
  - split: val
    path: sft_val.parquet
- config_name: rl
  data_files:
  - split: train
    path: rl_train.parquet
  - split: val
    path: rl_val.parquet
---

# {name}

Written by `build` of `data_prep.curation`. `sft_*.parquet` is for stage 1: interleaved as it is, and with
`data.text_only=true` for the text-only control. `rl_*.parquet` asks the same questions in stage 2. Frames are 1-based entries
of TwiFF's eight-frame pool, paths of clips are relative to this folder, and no clip is both in training and in validation.
"""

_MARKUP = re.compile("</?reason>|<image>")

Counts = dict[str, int]


def write(folder: Path, name: str, left_out: Mapping[str, int]) -> None:
    """Writes ``card.json``, ``README.md`` and a PNG per figure; ``left_out`` counts omitted candidates by reason."""
    tables = {file: pq.read_table(folder / f"{file}.parquet") for file in FILES}
    sft = pa.concat_tables([tables["sft_train"], tables["sft_val"]])
    card = {
        "name": name,
        "rows": {file: len(table) for file, table in tables.items()},
        "clips": {file: len(table["video"].unique()) for file, table in tables.items()},
        "left_out": dict(left_out),
        **measure(sft),
        "paper": PAPER,
    }
    write_json(folder / "card.json", card)
    (folder / "README.md").write_text(readme(card))
    for figure, drawn in figures(card).items():
        drawn.savefig(folder / f"{figure}.png", dpi=120)


def measure(sft: pa.Table) -> dict[str, Any]:
    """Counts rows of stage 1 by ``category``, ``gain`` and number of ``future_frames``, and by ``words`` for each of `TEXTS`.

    The question is counted with its options, the reasoning without the answer.
    """
    categories, gains, frames = Counter[str](), Counter[int](), Counter[int]()
    words = {text: Counter[int]() for text in TEXTS}
    for row in sft.select(["category", "gain", "reasoning_image", "conversations", "answer", "cot"]).to_pylist():
        categories[row["category"] or "none"] += 1
        gains[row["gain"]] += 1
        frames[len(row["reasoning_image"])] += 1
        texts = (row["conversations"][0]["value"], row["answer"], row["cot"].partition("<answer>")[0])
        for text, content in zip(TEXTS, texts, strict=True):
            words[text][len(_MARKUP.sub(" ", content).split())] += 1
    return {
        "category": dict(categories.most_common()),
        "gain": _by_number(gains),
        "future_frames": _by_number(frames),
        "words": {text: _by_number(counts) for text, counts in words.items()},
    }


def _by_number(counts: Counter[int]) -> Counts:
    return {str(number): counts[number] for number in sorted(counts)}


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Returns counts as shares of their sum."""
    total = sum(counts.values())
    return {key: count / total for key, count in counts.items()}


def _beside_paper(card: Mapping[str, Any], what: str) -> Iterator[tuple[str, int, float, float | None]]:
    """Yields key, rows, share and the paper's share (None if it has no such key), for all keys of either."""
    counts, paper = card[what], shares(PAPER[what])
    own = shares(counts)
    keys = [*counts, *(key for key in paper if key not in counts)]
    for key in keys if what == "category" else sorted(keys, key=int):
        yield key, counts.get(key, 0), own.get(key, 0.0), paper.get(key)


def mean_and_median(counts: Counts) -> tuple[float, int]:
    """Returns mean and median of the keys, weighted by counts. The median is the lower of two."""
    numbers = sorted((int(number), count) for number, count in counts.items())
    total, below = sum(counts.values()), 0
    median = next(number for number, count in numbers if 2 * (below := below + count) >= total)
    return sum(number * count for number, count in numbers) / total, median


def readme(card: Mapping[str, Any]) -> str:
    """Returns a dataset card in Markdown, with a head for the Hugging Face hub."""
    files = [(f"`{file}.parquet`", card["rows"][file], card["clips"][file]) for file in FILES]
    parts = [HEAD.format(name=card["name"]), markdown("file", "rows", "clips", rows=files)]
    for what, title in TITLES.items():
        rows = [(key, n, f"{own:.1%}", "" if of is None else f"{of:.1%}") for key, n, own, of in _beside_paper(card, what)]
        table = markdown(what.replace("_", " "), "rows", "share", "paper", rows=rows)
        parts.append(f"## {title.capitalize()}\n\n{table}\n![]({what}.png)\n")
    words = [(text, *(f"{number:.1f}" for number in mean_and_median(card["words"][text]))) for text in TEXTS]
    parts.append("## Words\n\n" + markdown("text", "mean", "median", rows=words) + "\n![](words.png)\n")
    if card["left_out"]:
        left_out = [*card["left_out"].items()]
        parts.append("## Left out\n\n" + markdown("reason", "candidates", rows=left_out))
    return "\n".join(parts)


def figures(card: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws bars of shares beside the paper's for each of `TITLES`, and of the numbers of words: its Figure 6."""
    drawn = {}
    for what, title in TITLES.items():
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot(xlabel=title, ylabel="share of rows")
        keys, _, own, paper = zip(*_beside_paper(card, what), strict=True)
        positions = range(len(keys))
        axes.bar([at - 0.2 for at in positions], own, 0.4, label=card["name"])
        axes.bar([at + 0.2 for at in positions], [of or 0.0 for of in paper], 0.4, label="Future-L1-50K (paper)")
        axes.set_xticks(list(positions), keys)
        axes.legend(frameon=False)
        drawn[what] = figure
    drawn["words"] = figure = Figure(figsize=(9, 3), layout="constrained")
    for place, text in enumerate(TEXTS, start=1):
        axes = figure.add_subplot(1, len(TEXTS), place, xlabel=f"words of the {text}", ylabel="rows" if place == 1 else "")
        counts = card["words"][text]
        axes.bar([int(number) for number in counts], list(counts.values()), 1)
    return drawn
