"""Interventions on a run: whose latents go where, and on which runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_records import record
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.choices import KINDS
from future_l1_verl.evaluation.interventions import Interventions, require_same
from future_l1_verl.evaluation.runs import Run, RunError

Answer = tuple[list[int], str]  # spans and truth


def run_of(folder: Path, *answers: Answer, **settings: Any) -> Run:
    """The latents of an answer say whose they are, and where they were."""
    records = [record(row, spans=spans, truth=truth) for row, (spans, truth) in enumerate(answers)]
    for each in records:
        if each.spans:
            runs.save_latents(folder, each.row, latents_of(each.row, sum(each.spans)))
    return Run(folder, {"save_latents": True} | settings, records)


def latents_of(row: int, count: int) -> torch.Tensor:
    return torch.tensor([[row, slot] for slot in range(count)], dtype=torch.bfloat16)


def donors_of(run: Run, row: int, seeds: int = 60) -> set[int | None]:
    return {Interventions("swap", run, seed).of_row(row)[1] for seed in range(seeds)}


def test_latents_of_another_answer_are_given_whole(tmp_path: Path) -> None:
    run = run_of(tmp_path, ([4], "left"), ([4], "top"))
    intervention, donor = Interventions("swap", run).of_row(0)
    assert (intervention.kind, donor) == ("given", 1)
    assert torch.equal(intervention.latents, latents_of(1, 4))


# Row 0 is asked about; what may be its donors.
DONORS = [
    ("another truth first", [([4], "left"), ([4], "left"), ([4], "top"), ([4], "right")], {2, 3}),
    ("the same truth if there is no other", [([4], "left"), ([4], "left"), ([4], "left")], {1, 2}),
    ("the same shape before another truth", [([4], "left"), ([4], "left"), ([2, 2], "top")], {1}),
    ("the same shape means each span", [([2, 4], "left"), ([4, 2], "top"), ([2, 4], "top")], {2}),
    ("else as many latents or more", [([4], "left"), ([2], "top"), ([2, 2], "top"), ([4, 4], "right")], {2, 3}),
    ("of these, another truth", [([4], "left"), ([2], "top"), ([2, 2], "left"), ([4, 4], "right")], {3}),
    ("else any", [([4], "left"), ([2], "top"), ([1], "right"), ([], "top")], {1, 2}),
    ("never one without latents", [([4], "left"), ([], "top"), ([1], "left")], {2}),
]


@pytest.mark.parametrize(("answers", "donors"), [case[1:] for case in DONORS], ids=[case[0] for case in DONORS])
def test_donors(answers: list[Answer], donors: set[int], tmp_path: Path) -> None:
    assert donors_of(run_of(tmp_path, *answers), 0) == donors


def test_every_donor_is_as_likely(tmp_path: Path) -> None:
    run = run_of(tmp_path, *[([4], truth) for truth in ["b", "a", "b", "c", "a", "c", "c"]])
    counts = Counter(Interventions("swap", run, seed).of_row(0)[1] for seed in range(1000))
    # 200 each with a deviation of 12.6.
    assert set(counts) == {1, 3, 4, 5, 6} and all(abs(count - 200) < 60 for count in counts.values())


answers = st.lists(st.tuples(st.lists(st.integers(1, 2), max_size=2), st.sampled_from("ab")), min_size=2, max_size=8)


@settings(deadline=None)
@given(answers, st.integers(0, 5))
def test_a_donor_is_another_answer_that_fits_as_well_as_any(
    tmp_path_factory: pytest.TempPathFactory, found: list[Answer], seed: int
) -> None:
    run = run_of(tmp_path_factory.mktemp("run"), *found)
    interventions = Interventions("swap", run, seed)

    def rank(row: int, donor: int) -> tuple[int, bool]:
        (spans, truth), (others, other) = found[row], found[donor]
        return 0 if others == spans else 1 if sum(others) >= sum(spans) else 2, other == truth

    for row, (spans, _) in enumerate(found):
        fits = [donor for donor, (others, _) in enumerate(found) if others and donor != row]
        if not spans:
            assert interventions.of_row(row) == (None, None)
        elif not fits:
            with pytest.raises(RunError, match=f"no other answer than that of row {row} has latents to swap in"):
                interventions.of_row(row)
        else:
            donor = interventions.of_row(row)[1]
            assert donor in fits and rank(row, donor) == min(rank(row, other) for other in fits)


def test_shuffled_latents_are_the_answers_own_in_another_order(tmp_path: Path) -> None:
    run = run_of(tmp_path, ([4, 2], "left"), ([4, 2], "top"))
    orders = set()
    for seed in range(20):
        intervention, donor = Interventions("shuffle", run, seed).of_row(0)
        assert (intervention.kind, donor) == ("given", None)
        assert (intervention.latents[:, 0] == 0).all() and sorted(intervention.latents[:, 1].tolist()) == list(range(6))
        orders.add(tuple(intervention.latents[:, 1].tolist()))
    assert len(orders) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_is_a_function_of_seed_and_row(kind: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, *[([4], f"truth {row}") for row in range(40)])

    def done(seed: int, rows: list[int]) -> dict[int, tuple[Any, ...]]:
        interventions = Interventions(kind, run, seed)
        found = {row: interventions.of_row(row) for row in rows}
        return {
            row: (each.kind, each.seed, None if each.latents is None else each.latents.tolist(), donor)
            for row, (each, donor) in found.items()
        }

    rows = list(range(40))
    assert done(1, rows) == done(1, rows[::-1])
    assert done(1, [7]) == {7: done(1, rows)[7]}
    if kind in ("swap", "shuffle", "noise"):
        assert done(1, rows) != done(2, rows)
        assert kind != "noise" or len({each[1] for each in done(1, rows).values()}) == 40


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_latents_is_left_alone(kind: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, ([], "left"), ([4], "top"))
    assert Interventions(kind, run).of_row(0) == (None, None)


def test_other_kinds_are_those_of_the_decoder(tmp_path: Path) -> None:
    run = run_of(tmp_path, ([4], "left"), ([4], "top"), save_latents=False)
    for kind in ("noise", "zero", "drop", "freeze"):
        intervention, donor = Interventions(kind, run).of_row(0)
        assert (intervention.kind, intervention.latents, donor) == (kind, None, None)
    with pytest.raises(ValueError, match=r"--intervene is one of swap, .*, not 'invert'"):
        Interventions("invert", run)


@pytest.mark.parametrize("kind", ["swap", "shuffle"])
def test_latents_that_are_needed_and_were_not_kept_are_missed_before_a_question_is_asked(kind: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, ([4], "left"), ([4], "top"), save_latents=False)
    with pytest.raises(RunError, match=f"{tmp_path}: was run without --save-latents, which --intervene {kind} needs"):
        Interventions(kind, run)


def test_a_run_with_an_intervention_is_not_intact(tmp_path: Path) -> None:
    run = run_of(tmp_path, ([4], "left"), ([4], "top"), intervene="zero")
    with pytest.raises(RunError, match=f"{tmp_path}: is not intact, but a run with --intervene zero"):
        Interventions("swap", run)


SETTINGS: dict[str, Any] = {
    "task": "rl", "questions": 2, "decoding": {"seed": 0}, "save_latents": True, "intervene": None, "intact": None,
}  # fmt: skip


def test_an_intact_run_differs_in_nothing_but_that_it_is_intact(tmp_path: Path) -> None:
    intact = Run(tmp_path, SETTINGS, [])
    mine = SETTINGS | {"save_latents": False, "intervene": "swap", "intact": str(tmp_path)}
    require_same(mine, intact)
    for changes, named in (
        ({"task": "synthetic"}, "task"),
        ({"decoding": {"seed": 1}, "max_frames": 3}, "decoding, max_frames"),
        ({"dtype": "float32"}, "dtype"),
    ):
        with pytest.raises(RunError, match=f"{tmp_path}: was run with other {named};"):
            require_same(mine | changes, intact)
    require_same(mine | {"questions": 1}, intact)
    with pytest.raises(RunError, match=rf"{tmp_path}: has fewer questions \(2, not 3\); use --limit 2"):
        require_same(mine | {"questions": 3}, intact)
    with pytest.raises(RunError, match="was run with other task;"):
        require_same({name: value for name, value in mine.items() if name != "task"}, intact)
