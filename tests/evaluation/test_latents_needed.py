"""Interventions measure what they claim: on a model that answers by its latents, and one that was made not to (colours.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from colours import write_model, write_questions
from vllm_server import SMALL, serving

from future_l1_verl.cli import main
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.runs import Run

pytestmark = pytest.mark.engine

COUNT = 32


class Asked:
    """A model that is served at ``url``, its intact run, and what interventions make of it."""

    def __init__(self, folder: Path, questions: Path, url: str) -> None:
        self.folder, self.questions, self.url = folder, questions, url
        self.intact = self.run("intact", "--save-latents")

    def run(self, name: str, *arguments: str) -> Run:
        files = ["--model", str(self.folder / "model"), "--data", str(self.questions), "--out", str(self.folder / name)]
        how = ["--max-tokens", "16", "--min-latents", "2", "--system-prompt", "", "--url", self.url]
        assert main(["eval", "run", "--task", "rl", *files, *how, *arguments]) == 0
        return runs.read_finished(self.folder / name)

    def after(self, kind: str, *arguments: str) -> tuple[Run, dict[str, Any]]:
        """The run with an intervention, and its comparison with the intact one over all its questions."""
        run = self.run(kind, "--intervene", kind, "--intact", str(self.folder / "intact"), "--save-latents", *arguments)
        return run, json.loads((self.folder / kind / "comparison.json").read_text())["all"]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions"), COUNT)


@contextmanager
def asked(folder: Path, questions: Path, needs_latents: bool) -> Iterator[Asked]:
    write_model(folder / "model", needs_latents)
    with serving(str(folder / "model"), *SMALL) as url:
        yield Asked(folder, questions, url)


@pytest.fixture(scope="module")
def dependent(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asked(tmp_path_factory.mktemp("dependent"), questions, needs_latents=True) as found:
        yield found


@pytest.fixture(scope="module")
def independent(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asked(tmp_path_factory.mktemp("independent"), questions, needs_latents=False) as found:
        yield found


def test_both_are_right_when_left_alone(dependent: Asked, independent: Asked) -> None:
    for each in (dependent, independent):
        assert [record.answer for record in each.intact.records] == [record.truth for record in each.intact.records]
        assert all(record.spans == [2] for record in each.intact.records)


def test_latents_that_are_needed_are_missed(dependent: Asked) -> None:
    run, compared = dependent.after("zero")
    assert all((runs.latents(run.folder, record.row) == 0).all() for record in run.records)
    # Without its latents it cannot know the colour: whatever it says is right for a quarter of the clips.
    assert compared["changed"] >= 0.5 and compared["scores"]["accuracy"]["b"] <= 0.5
    assert compared["scores"]["accuracy"]["interval"][1] < 0


def test_with_the_latents_of_another_answer_it_gives_that_answer(dependent: Asked) -> None:
    run, compared = dependent.after("swap")
    truths = {record.row: record.truth for record in run.records}
    assert [record.answer for record in run.records] == [truths[record.donor] for record in run.records]
    assert compared["changed"] == 1.0 and compared["mcnemar"]["only_a"] == COUNT


@pytest.mark.parametrize(("kind", "count"), [("zero", COUNT), ("swap", 8)])
def test_latents_that_are_not_needed_change_nothing(independent: Asked, kind: str, count: int) -> None:
    """Of all questions, or of the first."""
    run, compared = independent.after(kind, "--limit", str(count))
    assert compared["n"] == len(run.records) == count
    intact = {record.row: record for record in independent.intact.records}
    assert [record.token_ids for record in run.records] == [intact[record.row].token_ids for record in run.records]
    assert compared["changed"] == 0.0 and compared["scores"]["accuracy"]["difference"] == 0.0
    # The control: what was put in was something else.
    assert all(
        not runs.latents(run.folder, record.row).allclose(runs.latents(independent.folder / "intact", record.row))
        for record in run.records
    )
