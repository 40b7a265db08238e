"""The report folder of a run: what was learned, accuracy after each stage, curves of both trainings, sample answers beside
their frames."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from future_l1_verl.data.video import read_frames
from future_l1_verl.evaluation.comparison import compare
from future_l1_verl.evaluation.curves import read_curves, write_curves
from future_l1_verl.evaluation.runs import COMPARISON, SUMMARY, Record, Run, read_finished
from future_l1_verl.statistics import with_interval
from future_l1_verl.tables import markdown
from future_l1_verl.toy.learned import what_was_learned

matplotlib.use("Agg")


def write_report(run: Path, evaluations: dict[str, Path], interventions: dict[str, Path], samples: int = 3) -> Path:
    """Writes ``run/report`` from ``run/tensorboard/{sft,rl}``, evaluation folders named by stage, in order, and folders of runs
    with interventions by their kind. The last two stages are compared question by question.

    Returns the path of ``report.md``. Raises RunError if an evaluation is missing or incomplete, or the last two are not of the
    same questions; FileNotFoundError if a tensorboard folder or a comparison is missing.
    """
    finished = {stage: read_finished(folder) for stage, folder in evaluations.items()}
    out = run / "report"
    out.mkdir(parents=True, exist_ok=True)
    summaries = {stage: json.loads((folder / SUMMARY).read_text())["splits"] for stage, folder in evaluations.items()}
    figures = write_curves(run, out)
    lines = ["# Report", ""]
    if sentence := what_was_learned(read_curves(run / "tensorboard" / "rl")):
        lines += [sentence, ""]
    lines += [_accuracy_table(summaries), "![accuracy](accuracy.png)", ""]
    _plot_accuracy(summaries, out / "accuracy.png")
    lines += _headroom_table(run / "data" / "manifest.json")
    if len(finished) > 1:
        lines.append(_last_step_table(*list(finished.items())[-2:]))
    for name, title in figures.items():
        lines += [f"![{title}]({name})", ""]
    records = list(finished.values())[-1].records
    if interventions:
        lines += ["## Do the latents matter?", "", _interventions_table(interventions)]
    lines += ["## Sample answers", ""]
    for number, record in enumerate(_one_per_split(records, samples), start=1):
        _plot_frames(record, out / f"sample_{number}.png")
        lines += _sample(number, record)
    report = out / "report.md"
    report.write_text("\n".join(lines) + "\n")
    return report


def _accuracy_table(summaries: dict[str, dict[str, Any]]) -> str:
    rows = [
        (
            *(stage, split, row["n"], with_interval(**row["scores"]["accuracy"])),
            *(f"{row[name]:.3f}" if name in row else "-" for name in ("majority", "parsed", "reasoning_true")),
            *(f"{row[name]:.2f}" for name in ("spans", "latents")),
        )
        for stage, splits in summaries.items()
        for split, row in splits.items()
    ]
    shares = ("majority", "parsed", "reasoning true")
    return markdown("stage", "split", "n", "accuracy (95 %)", *shares, "spans", "latents", rows=rows)


def _headroom_table(manifest: Path) -> list[str]:
    """Returns the accuracy of perfect readers on test questions of the synthetic set (data_prep/toy/synthetic/headroom.py),
    and of the teacher of stage 1; nothing for other sets."""
    said = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if "headroom" not in said:
        return []
    shares = {
        split: (row["chance"], said["taught"][split], row["without_future"], row["with_future"])
        for split, row in said["headroom"]["test"].items()
    }
    rows = [(split, *(f"{share:.3f}" for share in each)) for split, each in shares.items()]
    seen = ("from the observed frames and the physics", "from the future frames")
    return [markdown("split", "guessing", "the teacher of stage 1", *seen, rows=rows)]


def _last_step_table(before: tuple[str, Run], after: tuple[str, Run]) -> str:
    compared = compare(before[1], after[1])
    rows = [(split, *_difference(row), f"{row['mcnemar']['p']:.2g}") for split, row in compared.items()]
    return markdown("split", "n", before[0], after[0], "difference (95 %)", "McNemar p", rows=rows)


def _interventions_table(folders: dict[str, Path]) -> str:
    compared = {kind: json.loads((folder / COMPARISON).read_text()) for kind, folder in folders.items()}
    rows = [
        (kind, split, *_difference(row), f"{row['changed']:.3f}")
        for kind, each in compared.items()
        for split, row in each.items()
    ]
    columns = ("intact", "replaced", "difference (95 %)", "answers changed")
    return markdown("latents replaced", "split", "n", *columns, rows=rows)


def _difference(row: dict[str, Any]) -> tuple[int | str, ...]:
    """Returns the cells of a comparison of accuracies."""
    score = row["scores"]["accuracy"]
    return row["n"], f"{score['a']:.3f}", f"{score['b']:.3f}", with_interval(score["difference"], score["interval"])


def _plot_accuracy(summaries: dict[str, dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4))
    width = 0.8 / len(summaries)
    for position, (stage, splits) in enumerate(summaries.items()):
        scores = [row["scores"]["accuracy"] for row in splits.values()]
        heights = [score["mean"] for score in scores]
        errors = [
            [score["mean"] - score["interval"][0] for score in scores],
            [score["interval"][1] - score["mean"] for score in scores],
        ]
        axes.bar([i + position * width for i in range(len(splits))], heights, width, yerr=errors, capsize=3, label=stage)
    splits = next(iter(summaries.values()))
    axes.set_xticks([i + width * (len(summaries) - 1) / 2 for i in range(len(splits))], list(splits))
    axes.hlines(
        [row["majority"] for row in splits.values()],
        [i - width / 2 for i in range(len(splits))],
        [i + width * (len(summaries) - 0.5) for i in range(len(splits))],
        colors="black",
        linestyles="dotted",
        label="majority answer",
    )
    axes.set(ylim=(0, 1), ylabel="accuracy (95 % interval)", title="Held-out accuracy by split")
    axes.legend()
    _save(figure, path)


def _one_per_split(records: list[Record], count: int) -> list[Record]:
    """Returns the first answer of each split, then the next ones, up to ``count``."""
    firsts = list({record.split: record for record in reversed(records)}.values())
    return [*firsts, *(record for record in records if record not in firsts)][:count]


def _plot_frames(record: Record, path: Path) -> None:
    images = read_frames(record.video, record.frames)
    figure, axes = plt.subplots(1, len(images), figsize=(2 * len(images), 2.2), squeeze=False)
    for number, (axis, image) in enumerate(zip(axes[0], images, strict=True), start=1):
        axis.imshow(image)
        axis.set_title(f"observed {number}", fontsize=8)
        axis.axis("off")
    _save(figure, path)


def _sample(number: int, record: Record) -> list[str]:
    options = f"Options: {', '.join(record.options)}. " if record.options else ""
    outcome = "correct" if record.scores["accuracy"] else "wrong" if record.parsed else "unparsed"
    return [
        f"### {number}. {record.split}: {outcome}",
        "",
        f"![frames](sample_{number}.png)",
        "",
        f"{record.problem.replace('<image>', '').splitlines()[0]} {options}Right: **{record.truth}**.",
        "",
        "```",
        record.text,
        "```",
        "",
    ]


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
