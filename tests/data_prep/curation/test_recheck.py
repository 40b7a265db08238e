"""Gains of a selection and of its control on fresh rollouts, against what is computed by hand."""

from __future__ import annotations

import json
from itertools import accumulate
from math import comb
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.curation import recheck as module
from data_prep.curation import scores
from data_prep.curation.pool import SELECTED
from data_prep.curation.recheck import recheck, run
from data_prep.curation.scores import Score, ScoresError
from future_l1_verl import cli

ROLLOUTS = 8
SEED, OTHER_SEED = 0, 1  # of the scores that were selected by, and of those afterwards

Gains = dict[str, int | None]


def member(name: str, gain: int) -> dict[str, object]:
    return {
        "id": name,
        "source": f"made: {name}",
        "video": f"{name}.mp4",
        "question": "Which?",
        "answer": "left",
        "options": [],
        "image": [],
        "reasoning_image": [5],
        "response": "",
        "category": "",
        "base_correct": max(0, -gain),
        "hint_correct": max(0, gain),
        "gain": gain,
        "rollouts": ROLLOUTS,
    }


def score(name: str, gain: int | None) -> Score:
    """Without a gain, the last rollout with hints has no verdict."""
    counts = {"base": max(0, -(gain or 0)), "hint": None if gain is None else max(0, gain)}
    row: Score = {"id": name}
    for condition, correct in counts.items():
        verdicts = [number < correct for number in range(ROLLOUTS)] if correct is not None else [True] * (ROLLOUTS - 1) + [None]
        row[condition] = [
            {"seed": seed, "text": "t", "correct": verdict, "parsed": verdict and True, "error": None}
            for seed, verdict in enumerate(verdicts)
        ]
        row[f"{condition}_correct"] = correct
    return row


def write_settings(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"seed": seed, "rollouts": ROLLOUTS}))
    return folder


def write_selection(folder: Path, selected: Gains, control: Gains) -> Path:
    """A folder as `select --control` leaves it, with the gains by which it chose."""
    before = write_settings(folder / "before", SEED)
    out = folder / "selected"
    out.mkdir(exist_ok=True)
    for name, gains in (("selected", selected), ("control", control)):
        pq.write_table(pa.Table.from_pylist([member(*one) for one in gains.items()], SELECTED), out / f"{name}.parquet")
    (out / "report.json").write_text(json.dumps({"settings": {"scores": str(before)}}))
    return out


def write_scores(folder: Path, gains: Gains, seed: int = OTHER_SEED, per_shard: int = 3) -> Path:
    write_settings(folder, seed)
    rows = [score(*one) for one in gains.items()]
    for number, start in enumerate(range(0, len(rows), per_shard)):
        scores.write(folder / "scores" / f"shard-{number:06d}.parquet", rows[start : start + per_shard], {})
    return folder


CHOSEN: Gains = {"a": 8, "b": 7, "c": 6, "d": 6}
DRAWN: Gains = {"e": 2, "a": 8, "f": -3, "g": 0, "h": 1}  # the control may hold selected ones
NOW: Gains = {"h": 0, "a": 5, "b": 3, "x": -8, "c": 4, "d": -2, "e": 1, "f": 0, "g": -1}  # x is in neither


def test_means_are_those_by_hand(tmp_path: Path) -> None:
    found = recheck(write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", NOW))
    assert list(found) == ["selected", "control", "difference"]
    assert [(found[name]["n"], found[name]["chosen"], found[name]["now"]) for name in ("selected", "control")] == [
        (4, (8 + 7 + 6 + 6) / 4, (5 + 3 + 4 - 2) / 4),
        (5, (2 + 8 - 3 + 0 + 1) / 5, (1 + 5 + 0 - 1 + 0) / 5),
    ]
    assert found["difference"]["n"] == 4 + 5
    assert found["difference"]["now"] == pytest.approx(10 / 4 - 5 / 5)


def test_candidates_without_a_complete_score_are_left_out_and_not_counted(tmp_path: Path) -> None:
    now = {name: gain for name, gain in NOW.items() if name not in ("b", "e")} | {"d": None, "g": None}
    found = recheck(write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", now))
    assert [(found[name]["n"], found[name]["chosen"], found[name]["now"]) for name in ("selected", "control")] == [
        (2, (8 + 6) / 2, (5 + 4) / 2),  # a, c
        (3, (8 - 3 + 1) / 3, pytest.approx((5 + 0 + 0) / 3)),  # a, f, h
    ]
    assert found["difference"]["n"] == 2 + 3


@pytest.mark.parametrize(("name", "lost"), [("selected", "abcd"), ("control", "aefgh")])
def test_a_group_of_which_nothing_is_left_is_refused_by_name(name: str, lost: str, tmp_path: Path) -> None:
    now = {one: gain for one, gain in NOW.items() if one not in lost} | {lost[0]: None}
    with pytest.raises(ScoresError, match=rf"now: none of the {len(lost)} of {name} has a complete score"):
        recheck(write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", now))


def test_scores_of_the_same_seed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"now: has to differ in its seed, .* it differs in nothing"):
        recheck(write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", NOW, seed=SEED))


def test_scores_with_other_settings_are_refused_by_what_differs(tmp_path: Path) -> None:
    now = write_scores(tmp_path / "now", NOW)
    (now / "settings.json").write_text(json.dumps({"seed": OTHER_SEED, "rollouts": ROLLOUTS + 1}))
    with pytest.raises(ScoresError, match="it differs in rollouts, seed"):
        recheck(write_selection(tmp_path, CHOSEN, DRAWN), now)


def test_a_selection_without_its_control_is_told_how_to_have_one(tmp_path: Path) -> None:
    selected = write_selection(tmp_path, CHOSEN, DRAWN)
    (selected / "control.parquet").unlink()
    with pytest.raises(ScoresError, match="`select --control` writes one"):
        recheck(selected, write_scores(tmp_path / "now", NOW))


@pytest.mark.parametrize("name", ["now", "before"])
def test_scores_that_do_not_say_their_seed_are_refused_by_name(name: str, tmp_path: Path) -> None:
    selected, now = write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", NOW)
    (tmp_path / name / "settings.json").unlink()
    with pytest.raises(ScoresError, match=rf"{name}/settings\.json"):
        recheck(selected, now)


def test_a_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match="now: holds no scores"):
        recheck(write_selection(tmp_path, CHOSEN, DRAWN), write_settings(tmp_path / "now", OTHER_SEED))


def numbered(letter: str, gains: list[int]) -> Gains:
    return {f"{letter}{number}": gain for number, gain in enumerate(gains)}


def check(folder: Path, selected: list[int], control: list[int]) -> dict[str, dict]:
    """A recheck in which these are the gains now."""
    members = numbered("s", selected), numbered("c", control)
    return recheck(write_selection(folder, *members), write_scores(folder / "now", members[0] | members[1], per_shard=1000))


def test_equal_gains_leave_no_doubt(tmp_path: Path) -> None:
    found = check(tmp_path, [3] * 5, [1] * 7)
    assert [found[name]["interval"] for name in found] == [[3, 3], [1, 1], [2, 2]]


def fair_draws() -> tuple[int, int]:
    """The 95 % interval of sixteen fair draws. Below 4 are 0.011 of them, up to 4 0.038: neither 10,000 resamples nor another
    level would give the same by chance."""
    below = list(accumulate(comb(16, heads) / 2**16 for heads in range(17)))
    low, high = (next(heads for heads in range(17) if below[heads] >= level) for level in (0.025, 0.975))
    return low, high


def test_the_interval_is_that_of_resampled_candidates(tmp_path: Path) -> None:
    """Where half of sixteen gain 4 and half nothing, a resample's mean is a quarter of sixteen fair draws."""
    low, high = fair_draws()
    found = check(tmp_path, [0, 4] * 8, [1] * 4)
    assert found["selected"]["interval"] == [low / 4, high / 4]
    assert found["difference"]["interval"] == [low / 4 - 1, high / 4 - 1]


def test_the_interval_of_the_difference_holds_the_doubt_of_both(tmp_path: Path) -> None:
    """Eight fair draws less eight others are sixteen less eight, and each is half a mean."""
    low, high = fair_draws()
    found = check(tmp_path, [0, 4] * 4, [0, 4] * 4)
    assert found["difference"]["now"] == 0
    assert found["difference"]["interval"] == [(low - 8) / 2, (high - 8) / 2]


GAINS = st.lists(st.integers(-ROLLOUTS, ROLLOUTS), min_size=1, max_size=30)


@settings(deadline=None, max_examples=25)
@given(selected=GAINS, control=GAINS)
def test_the_interval_covers_the_mean_and_no_more_than_the_gains(
    selected: list[int], control: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RESAMPLES", 400)
        found = check(tmp_path_factory.mktemp("drawn"), selected, control)
    for name, gains in (("selected", selected), ("control", control)):
        low, high = found[name]["interval"]
        assert found[name]["now"] == pytest.approx(sum(gains) / len(gains))
        assert min(gains) <= low <= found[name]["now"] + 1e-9
        assert found[name]["now"] - 1e-9 <= high <= max(gains)
    low, high = found["difference"]["interval"]
    assert low - 1e-9 <= found["selected"]["now"] - found["control"]["now"] <= high + 1e-9


def test_the_command_prints_a_table_and_writes_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    selected, now = write_selection(tmp_path, CHOSEN, DRAWN), write_scores(tmp_path / "now", NOW)
    parser = cli.parser("curate recheck")
    run(parser.parse_args(["--selected", str(selected), "--scores", str(now), "--json", str(tmp_path / "found.json")]))
    found = recheck(selected, now)
    assert json.loads((tmp_path / "found.json").read_text()) == found
    printed = capsys.readouterr().out
    assert all(f"{found[name]['now']:.2f}" in printed for name in found)
