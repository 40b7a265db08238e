from typing import Any

import numpy as np
import pytest
from evaluation_records import record
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from future_l1_verl.evaluation.scoring import as_tables, is_result, summarise
from future_l1_verl.statistics import bootstrap_interval, score
from future_l1_verl.toy.progress import condense


def test_the_interval_is_that_of_the_binomial() -> None:
    values = [1.0] * 60 + [0.0] * 40
    low, high = bootstrap_interval(values)
    # Resampling zeros and ones draws from Binomial(100, 0.6) / 100, whose deviation is 0.049.
    resampled = np.random.default_rng(1).binomial(100, 0.6, 100_000) / 100
    assert (low, high) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), abs=0.011)


def test_certainty_has_no_width_and_nothing_has_no_interval() -> None:
    assert bootstrap_interval([1.0] * 5) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


RIGHT: dict[str, Any] = {"scores": {"accuracy": 1.0}}
WRONG: dict[str, Any] = {"scores": {"accuracy": 0.0}}
UNPARSED: dict[str, Any] = WRONG | {"parsed": False}
MISSING: dict[str, Any] = {"scores": None, "parsed": False, "error": "no verdict"}


def test_each_hop_is_returned_with_its_n_and_interval() -> None:
    """docs/differences.md, row 34."""
    hops = {"1-hop": [RIGHT] * 12 + [WRONG] * 4, "2-hop": [RIGHT] * 5 + [UNPARSED] * 5, "3-hop": [WRONG] * 3}
    summary = summarise([record(split=hop, **verdict) for hop, verdicts in hops.items() for verdict in verdicts])
    assert list(summary) == ["1-hop", "2-hop", "3-hop", "all"]
    # 12 of 16; 5 of 10; 0 of 3; 17 of 29.
    for split, right, n in (("1-hop", 12, 16), ("2-hop", 5, 10), ("3-hop", 0, 3), ("all", 17, 29)):
        row = summary[split]
        assert (row["n"], row["missing"]) == (n, 0)
        assert row["scores"]["accuracy"]["mean"] == pytest.approx(right / n)
        # A resampled count of right answers is Binomial(n, right / n); one answer more or less is the grid of its quantiles.
        resampled = np.random.default_rng(7).binomial(n, right / n, 100_000) / n
        expected = np.percentile(resampled, [2.5, 97.5])
        assert row["scores"]["accuracy"]["interval"] == pytest.approx(list(expected), abs=1.01 / n if right > 0 else 0)
    assert [summary[split]["parsed"] for split in summary] == [1.0, 0.5, 1.0, pytest.approx(24 / 29)]


def cells(table: Table) -> dict[str, list[str]]:
    return {column.header: list(column.cells) for column in table.columns}


def test_failed_verdicts_stay_in_n_are_shown_and_make_no_result() -> None:
    """docs/differences.md, row 35: there they leave the denominator."""
    records = [record(**verdict) for verdict in (RIGHT, RIGHT, UNPARSED, MISSING)] + [record(split="2-hop", **MISSING)]
    summary = summarise(records)
    one, two, whole = summary["1-hop"], summary["2-hop"], summary["all"]
    assert [(row["n"], row["missing"]) for row in (one, two, whole)] == [(4, 1), (1, 1), (5, 2)]
    # Of the three with a verdict two are right and two are parsed.
    assert one["scores"]["accuracy"]["mean"] == one["parsed"] == whole["parsed"] == pytest.approx(2 / 3)
    assert (two["scores"], two["parsed"]) == ({}, None)
    assert not is_result(summary) and is_result(summarise(records[:3]))

    table, answers = as_tables(summary, "model")
    assert "NOT A RESULT: 2 of 5 verdicts are missing" in table.caption
    shown = cells(table)
    assert (shown["split"], shown["n"], shown["missing"]) == (["1-hop", "2-hop", "all"], ["4", "1", "5"], ["1", "1", "2"])
    assert shown["mean (95 %)"][0].startswith("0.667 (") and shown["mean (95 %)"][1] == "-"
    assert cells(answers)["parsed"] == ["0.667", "-", "0.667"]
    assert as_tables(summarise(records[:3]), "model")[0].caption is None


def test_spans_and_the_majority_answer_are_over_all_answers() -> None:
    summary = summarise(
        [
            record(**RIGHT, truth="left", spans=[4]),
            record(**WRONG, truth="left", spans=[4, 2]),
            record(**UNPARSED, truth="top", spans=[], finish_reason="length"),
            record(**MISSING, truth="right", spans=[2]),
        ]
    )
    one = summary["1-hop"]
    assert one["majority"] == 0.5  # "left" is right twice
    assert (one["cut"], one["with_span"], one["spans"], one["latents"]) == (0.25, 0.75, 1.0, 3.0)


def test_marks_have_an_average_and_no_majority() -> None:
    marks = [{"reasoning": 5.0, "answer": 2.0}, {"reasoning": 1.0, "answer": 4.0}, {"reasoning": 0.0, "answer": 0.0}]
    summary = summarise([record(scores=each) for each in [*marks, None]])["all"]
    assert {name: each["mean"] for name, each in summary["scores"].items()} == {"reasoning": 2.0, "answer": 2.0, "average": 2.0}
    # Means per answer are 3.5, 2.5 and 0: the average varies less than the marks.
    assert summary["scores"]["average"]["interval"][1] == pytest.approx(bootstrap_interval([3.5, 2.5, 0.0])[1])
    assert summary["scores"]["average"]["interval"][1] < summary["scores"]["reasoning"]["interval"][1]
    assert "majority" not in summary
    scores, answers = as_tables({"all": summary}, "model")
    assert cells(scores)["score"] == ["reasoning", "answer", "average"] and "majority" not in cells(answers)


verdicts = st.lists(st.tuples(st.booleans(), st.none() | st.sampled_from([0.0, 1.0])), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(verdicts)
def test_no_answer_is_lost_and_none_without_a_verdict_is_in_a_mean(found: list[tuple[bool, float | None]]) -> None:
    figures = score([parsed for parsed, _ in found], [None if value is None else {"accuracy": value} for _, value in found])
    judged = [(parsed, value) for parsed, value in found if value is not None]
    assert (figures["n"], figures["n"] - figures["missing"]) == (len(found), len(judged))
    if judged:
        accuracy = figures["scores"]["accuracy"]
        assert accuracy["mean"] * len(judged) == pytest.approx(sum(value for _, value in judged))
        assert figures["parsed"] * len(judged) == pytest.approx(sum(parsed for parsed, _ in judged))
        assert 0 <= accuracy["interval"][0] <= accuracy["mean"] <= accuracy["interval"][1] <= 1


def test_progress_shows_a_step_and_hides_the_rest() -> None:
    line = "(pid=1) step:7 - rewards/accuracy/mean:0.25 - perf/x:1 - parity/text_gap_max:np.float64(1e-06)"
    assert condense(line) == "step 7: accuracy 0.25, parity gap 1e-06"
    assert condense("loading weights") is None
