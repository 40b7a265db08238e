"""The inspection of a run: replies as spans and words, figures, maps, and the page's files."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from inspection_run import FULL, LATENT, START, MadeRun, make_run
from torch.utils.tensorboard import SummaryWriter

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.curves import read_curves
from future_l1_verl.evaluation.inspection import figures, inspect, maps
from future_l1_verl.evaluation.inspection.page import Verdict, options, question, verdict
from future_l1_verl.evaluation.inspection.replies import Span, Words, parts
from future_l1_verl.evaluation.runs import Record, RunError


def record(text: str = "", roles: str = "", **changed: object) -> Record:
    row = {
        "row": 7, "id": "a", "split": "1-hop", "prompt_sha256": "", "problem": "", "options": [], "truth": "left", "video": "",
        "frames": [], "future": [], "token_ids": [], "spans": [], "finish_reason": "stop", "answer": None, "parsed": True,
        "scores": {"accuracy": 1.0},
    }  # fmt: skip
    return Record(**row | {"text": text, "roles": roles} | changed)


# Replies.


def test_spans_are_told_from_words_by_their_roles() -> None:
    text = f"so{START}{LATENT * 2}<|latent_end|><reason>it falls</reason>{FULL}"
    assert parts(record(text, "t" + "tfls" + "tttt" + "tfflle")) == [
        Words("so"),
        Span(1, (True, False), range(0, 2), "stop"),
        Words("<reason>", markup=True),
        Words("it falls"),
        Words("</reason>", markup=True),
        Span(2, (True, True, False, False), range(2, 6), "budget"),
    ]


def test_a_reply_may_end_in_a_span_and_a_budget_of_nothing_closes_it() -> None:
    assert parts(record(f"{START}<|latent_end|>{START}{LATENT}", "te" + "tf")) == [
        Span(1, (), range(0, 0), "budget"),
        Span(2, (True,), range(0, 1), "cut"),
    ]


def test_control_tokens_that_are_plain_text_stay_words() -> None:
    """A start token at the end of a reply, and one that is spelled out in letters."""
    text = f"{START} is a token{FULL}{START}"
    assert parts(record(text, "ttt" + "tfllle" + "t")) == [
        Words(f"{START} is a token"),
        Span(1, (True, False, False, False), range(0, 4), "budget"),
        Words(START),
    ]


def test_a_text_without_the_spans_of_its_roles_is_refused() -> None:
    with pytest.raises(RunError, match="row 7: roles has span 1 of 3 latents"):
        parts(record(FULL, "tflle"))


# What stands beside them.


def test_verdicts_are_told_apart() -> None:
    assert verdict(record(scores=None)).group == "no verdict"
    assert verdict(record(scores={"accuracy": 0.0}, parsed=False)).group == "unparsed"
    assert verdict(record(scores={"accuracy": 1.0})).group == "right"
    assert verdict(record(scores={"accuracy": 0.0})).group == "wrong"
    assert verdict(record(scores={"reasoning": 3, "answer": 4})) == Verdict("graded", "reasoning 3, answer 4", "answer 4 of 5")


def test_options_are_marked_and_leave_the_question() -> None:
    asked = record(
        problem="<image><image>Which wall?\nA. left wall\nB. right wall",
        options=["left wall", "right wall"],
        truth="A",
        answer="right wall",
    )
    assert question(asked) == "Which wall?"
    assert [tuple(option) for option in options(asked)] == [("A", "left wall", True, False), ("B", "right wall", False, True)]


# Figures.


def test_the_wedges_of_a_donut_are_the_shares_of_answers() -> None:
    counts = [0, 1, 1, 1, 2, 7, 9, 1]
    answers = [record(split="1-hop", spans=[4] * count) for count in counts] + [record(split="2-hop", spans=[1])]
    first, second = figures.spans_per_split(answers).axes
    shares = [(wedge.theta2 - wedge.theta1) / 360 for wedge in first.patches]
    assert shares == pytest.approx([1 / 8, 4 / 8, 1 / 8, 0, 0, 2 / 8])  # 0, 1, 2, 3, 4, and 5 or more
    assert [axes.texts[-1].get_text() for axes in (first, second)] == ["n = 8", "n = 1"]


def test_bars_are_means_by_number_of_spans_over_the_answers_that_were_judged() -> None:
    outcomes = {1: [1.0, 1.0, 0.0, 0.0], 3: [1.0, 1.0, 0.0, 1.0, 1.0]}
    answers = [record(spans=[2] * spans, scores={"accuracy": value}) for spans, of in outcomes.items() for value in of]
    (axes,) = figures.score_by_spans([*answers, record(spans=[2], scores=None)]).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([2 / 4, 4 / 5])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\nn = 4", "3\nn = 5"]


def test_marks_have_a_panel_each_and_their_average() -> None:
    marks = [{"reasoning": 2.0, "answer": 5.0}, {"reasoning": 4.0, "answer": 1.0}]
    answers = [record(spans=[1], scores=scores) for scores in marks]
    panels = figures.score_by_spans(answers).axes
    assert [axes.get_ylabel().split()[0] for axes in panels] == ["reasoning", "answer", "average"]
    assert [axes.patches[0].get_height() for axes in panels] == [3.0, 3.0, 3.0]
    assert all(axes.get_ylim() == (0, 5) for axes in panels)


def test_cosines_are_those_of_adjacent_spans() -> None:
    right, up = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # right, up: 0. up, up: 1. An answer with one span has no pair.
    (axes,) = figures.adjacent_cosine([[right, up, up], [right]]).axes
    assert axes.get_legend().get_texts()[0].get_text() == "mean 0.500, 2 pairs"
    assert sum(bar.get_height() for bar in axes.patches) == 2


# Maps.


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_keeps_apart_what_points_elsewhere_and_ignores_lengths(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(40, 16, generator=generator)
    latents = noise + torch.eye(16)[[0] * 20 + [1] * 20]
    points = maps.project(method, latents * torch.logspace(-2, 2, 40)[:, None])
    one, other = points[:20], points[20:]
    assert points.shape == (40, 2)
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > 2 * max(one.std(0).max(), other.std(0).max())


def test_a_map_of_many_latents_shows_some() -> None:
    assert maps.sample(10).tolist() == list(range(10))
    some = maps.sample(10 * maps.POINTS)
    assert len(set(some.tolist())) == maps.POINTS
    assert np.array_equal(some, maps.sample(10 * maps.POINTS))


# The folder.


class Links(HTMLParser):
    """What a page refers to, and how many elements it has of each kind."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.elements: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.targets += [value for name, value in attributes if name in ("src", "href")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("inspection"))


def copy(run: MadeRun, folder: Path, records: list[Record]) -> Path:
    """The run with other answers, and without latents."""
    runs.begin(folder, runs.read(run.folder).settings)
    runs.append(folder, records)
    return folder


def test_the_page_has_every_answer_and_refers_to_files_that_are_there(run: MadeRun) -> None:
    page = inspect(run.folder, methods=["pca"])
    links = Links(page)
    assert page == run.folder / "inspect/index.html"
    assert links.elements.count("article") == len(run.records)
    assert links.elements.count("script") == 1  # the page's own, not a reply's
    files = [target for target in links.targets if target != "data:,"]
    assert all((page.parent / file).is_file() for file in files)
    pictures = {"spans_per_split.png", "accuracy_by_spans.png", "latent_map_pca.png", "adjacent_cosine.png"}
    assert {file for file in files if "/" not in file} == pictures
    assert "1 answers have no verdict" in page.read_text()


def test_no_more_answers_than_asked_for(run: MadeRun) -> None:
    assert Links(inspect(run.folder, answers=3, methods=[])).elements.count("article") == 3


def test_there_is_no_map_of_few_latents(run: MadeRun, tmp_path: Path) -> None:
    folder = copy(
        run, tmp_path / "run", [replace(run.records[0], roles="tffffs", spans=[4], text=f"{START}{LATENT * 4}<|latent_end|>")]
    )
    runs.save_latents(folder, 0, torch.eye(4, 128))
    assert "Map of latents by t-SNE: 4 latents are too few, 5 are needed" in inspect(folder, methods=["tsne"]).read_text()


def test_without_latents_the_page_says_so(run: MadeRun, tmp_path: Path) -> None:
    text = inspect(copy(run, tmp_path / "run", run.records[:4])).read_text()
    assert "there are no latents" in text
    assert f"4 of {len(run.records)} questions are answered" in text
    assert "nearest: frame" not in text


def test_curves_of_the_training_are_shown_with_the_last_value_of_a_repeated_step(run: MadeRun, tmp_path: Path) -> None:
    for stage, tag in (("sft", "train/cross_entropy"), ("rl", "critic/score/mean")):
        for values in ({1: 3.0, 2: 9.0}, {2: 1.0}):  # stopped after step 2, continued from step 1
            with SummaryWriter(tmp_path / "tensorboard" / stage) as writer:
                for step, value in values.items():
                    writer.add_scalar(tag, value, step, walltime=step + value)
    assert read_curves(tmp_path / "tensorboard/rl") == {"critic/score/mean": [(1, 3.0), (2, 1.0)]}
    page = inspect(run.folder, answers=1, training=tmp_path, methods=[])
    drawn = {"sft_losses.png", "rl_learning.png", "rl_rewards.png"}  # figures without a curve are left out
    assert drawn == {target for target in Links(page).targets if target.startswith(("sft_", "rl_"))}


def test_a_training_without_curves_is_refused(run: MadeRun, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tensorboard/sft: does not exist"):
        inspect(run.folder, answers=1, training=tmp_path, methods=[])


def test_a_run_without_answers_and_latents_that_do_not_fit_are_refused(run: MadeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no answers"):
        inspect(copy(run, tmp_path / "empty", []))
    folder = copy(run, tmp_path / "run", [replace(run.records[0], roles="tfls", spans=[2], text="")])
    runs.save_latents(folder, 0, torch.zeros(4, 128))
    with pytest.raises(RunError, match="row 0 has 2 latents by its spans, 4 were kept"):
        inspect(folder)
