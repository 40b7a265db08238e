"""The folder ``inspect`` of a run: its page, figures and thumbnails."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from future_l1_verl.data.clips import even_numbers
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.curves import write_curves
from future_l1_verl.evaluation.inspection import figures, maps
from future_l1_verl.evaluation.inspection.answers import illustrate
from future_l1_verl.evaluation.inspection.nearest import Tower
from future_l1_verl.evaluation.inspection.page import Picture, render
from future_l1_verl.evaluation.runs import Record, RunError
from future_l1_verl.files import whole

FOLDER, PAGE = "inspect", "index.html"


class Drawn(NamedTuple):
    figure: Figure
    picture: Picture


def inspect(
    folder: Path,
    *,
    answers: int = 100,
    training: Path | None = None,
    methods: Sequence[str] = tuple(maps.METHODS),
    device: str = "cpu",
) -> Path:
    """Writes ``folder/inspect`` of an evaluation run, finished or not, and returns the path of its page.

    The page has at most ``answers`` answers, evenly spaced over the run, and figures of all. If latents were kept, they are
    mapped by ``methods`` (of `maps.METHODS`), and each is shown with its nearest future frame, by embeddings of the
    checkpoint's vision tower on ``device``. ``training`` holds ``tensorboard/sft`` and ``tensorboard/rl``.

    Raises RunError if the folder has no answers or latents that do not fit them, VideoError if a clip is missing,
    FileNotFoundError if the training has no curves.
    """
    run = runs.read(folder)
    if not run.records:
        raise RunError(f"{folder}: holds no answers yet; there is nothing to inspect")
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    pictures: list[Picture] = []
    skipped: list[str] = []
    kept = {record.row: _latents(folder, record) for record in run.records if _is_kept(folder, record)}
    for drawn in (*_of_answers(run.records), *_of_latents(kept, methods)):
        if isinstance(drawn, str):
            skipped.append(drawn)
        else:
            drawn.figure.savefig(out / drawn.picture.file, dpi=144)
            pictures.append(drawn.picture)
    if training is not None:
        pictures += [Picture(file, title) for file, title in write_curves(training, out).items()]
    chosen = [run.records[number] for number in even_numbers(len(run.records), answers)]
    tower = Tower(run.settings["model"], device) if any(record.row in kept for record in chosen) else None
    illustrated = illustrate(chosen, kept, tower, out)
    with whole(out / PAGE) as temporary:
        temporary.write_text(render(run, pictures, skipped, illustrated), encoding="utf-8")
    return out / PAGE


def _is_kept(folder: Path, record: Record) -> bool:
    return bool(record.spans) and (folder / runs.LATENTS / f"{record.row}.safetensors").is_file()


def _latents(folder: Path, record: Record) -> list[Tensor]:
    """Returns ``[T, H]`` of each span. Raises RunError if their number is not that of the answer."""
    latents = runs.latents(folder, record.row)
    if len(latents) != sum(record.spans):
        raise RunError(f"{folder}: row {record.row} has {sum(record.spans)} latents by its spans, {len(latents)} were kept")
    return list(latents.split(record.spans))


def _of_answers(records: Sequence[Record]) -> Iterator[Drawn | str]:
    about = "Number of latent spans per answer, by split"
    yield Drawn(figures.spans_per_split(records), Picture("spans_per_split.png", about))
    if any(record.scores is not None for record in records):
        about = "Mean score by number of spans, with 95 % bootstrap intervals"
        yield Drawn(figures.score_by_spans(records), Picture("accuracy_by_spans.png", about))
    else:
        yield "Scores by number of spans: no answer has a verdict"


def _of_latents(kept: Mapping[int, list[Tensor]], methods: Sequence[str]) -> Iterator[Drawn | str]:
    if not kept:
        yield "Figures of latents, and frames near them: there are no latents (evaluation run --save-latents keeps them)"
        return
    answers = list(kept.values())
    latents = torch.cat([span for spans in answers for span in spans])
    order = torch.tensor([number for spans in answers for number, span in enumerate(spans, start=1) for _ in span])
    some = maps.sample(len(latents))
    for method in methods:
        name = figures.METHOD_NAMES[method]
        if len(some) < maps.LEAST:
            yield f"Map of latents by {name}: {len(some)} latents are too few, {maps.LEAST} are needed"
            continue
        figure = figures.latent_map(method, maps.project(method, latents[some]), order[some].numpy())
        share = f"{len(some)} of {len(latents)} latents" if len(some) < len(latents) else f"all {len(latents)} latents"
        yield Drawn(
            figure, Picture(f"latent_map_{method}.png", f"{name} of {share} at unit length, by the order of their span")
        )
    if any(len(spans) > 1 for spans in answers):
        about = "Cosines of the mean latents of adjacent spans"
        yield Drawn(figures.adjacent_cosine(answers), Picture("adjacent_cosine.png", about))
    else:
        yield "Cosines of adjacent spans: no answer has two spans"
