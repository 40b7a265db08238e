"""Runs against each other, and runs together; what is expected is derived by hand or by theory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_records import record
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from future_l1_verl.evaluation.comparison import aggregate, aggregate_tables, both_ways, compare, comparison_tables
from future_l1_verl.evaluation.runs import Run, RunError
from future_l1_verl.statistics import bootstrap_interval


def run(accuracies: Sequence[float], name: str = "a", **changes: Any) -> Run:
    """Every other question is a "2-hop"."""
    records = [
        record(row, **{"scores": {"accuracy": float(value)}, "split": ("1-hop", "2-hop")[row % 2]} | changes)
        for row, value in enumerate(accuracies)
    ]
    return Run(Path(name), {"questions": len(records)}, records)


outcomes = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12)


@settings(max_examples=10, deadline=None)
@given(outcomes)
def test_a_run_does_not_differ_from_itself(values: list[float]) -> None:
    compared = compare(run(values), run(values))
    assert list(compared) == ["1-hop", "2-hop", "all"]
    for row in compared.values():
        difference = row["scores"]["accuracy"]
        assert (difference["difference"], difference["interval"], row["changed"]) == (0.0, [0.0, 0.0], 0.0)
        assert row["mcnemar"] == {"only_a": 0, "only_b": 0, "p": 1.0}


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 2), min_size=2, max_size=12))
def test_swapping_the_runs_negates_the_difference(pairs: list[tuple[float, float]]) -> None:
    a, b = (run(values) for values in zip(*pairs, strict=True))
    there, back = compare(a, b)["all"], compare(b, a)["all"]
    one, other = there["scores"]["accuracy"], back["scores"]["accuracy"]
    assert one["difference"] == -other["difference"]
    assert one["interval"] == pytest.approx([-other["interval"][1], -other["interval"][0]])
    assert (one["a"], one["b"]) == (other["b"], other["a"])
    tests = there["mcnemar"], back["mcnemar"]
    assert [(test["only_a"], test["only_b"]) for test in tests] == [
        (sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)),
        (sum(x < y for x, y in pairs), sum(x > y for x, y in pairs)),
    ]
    assert tests[0]["p"] == pytest.approx(tests[1]["p"])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 2), min_size=60, max_size=60))
def test_the_paired_interval_is_narrower_where_runs_agree(pairs: list[tuple[float, float]]) -> None:
    # Half of the questions are right or wrong in both runs.
    pairs = [(x, x) if number % 2 else (x, y) for number, (x, y) in enumerate(pairs)]
    a, b = np.array(pairs).T
    assume(min(a.std(), b.std()) > 0 and np.corrcoef(a, b)[0, 1] > 0.4)
    low, high = compare(run(a), run(b))["all"]["scores"]["accuracy"]["interval"]
    unpaired = 2 * 1.96 * math.sqrt((a.var() + b.var()) / len(a))
    assert high - low < unpaired


def test_the_interval_of_the_difference_is_that_of_its_distribution() -> None:
    # Of 100 questions b gains 30 and loses 10: the variance of a difference is 0.4 - 0.2 ** 2 = 0.36.
    a = [0.0] * 30 + [1.0] * 10 + [1.0] * 60
    b = [1.0] * 30 + [0.0] * 10 + [1.0] * 60
    row = compare(run(a), run(b))["all"]
    score = row["scores"]["accuracy"]
    assert (score["a"], score["b"], score["difference"]) == pytest.approx((0.7, 0.9, 0.2))
    assert score["interval"] == pytest.approx([0.2 - 1.96 * 0.06, 0.2 + 1.96 * 0.06], abs=0.011)
    # McNemar: at most 10 heads in 40 fair throws, both sides.
    assert row["mcnemar"]["p"] == pytest.approx(2 * sum(math.comb(40, k) for k in range(11)) / 2**40)


def test_every_score_is_compared_and_only_accuracy_has_mcnemar() -> None:
    marks = [{"reasoning": 1.0, "answer": 2.0}, {"reasoning": 3.0, "answer": 5.0}]
    better = [{"reasoning": 2.0, "answer": 2.0}, {"reasoning": 4.0, "answer": 5.0}]
    a, b = (Run(Path("run"), {}, [record(row, scores=each) for row, each in enumerate(found)]) for found in (marks, better))
    row = compare(a, b)["all"]
    differences = {name: score["difference"] for name, score in row["scores"].items()}
    assert differences == {"reasoning": 1.0, "answer": 0.0, "average": 0.5}
    assert "mcnemar" not in row


@pytest.mark.parametrize(
    ("one", "other", "question", "changed"),
    [
        ("left", "A", {}, False),
        ("(a)", "It goes to the left.", {}, False),
        ("left", "right", {}, True),
        ("left", None, {}, True),
        (None, None, {}, False),
        ("left or right", "right or top", {}, False),  # neither names an option
        ("left", "left or right", {}, True),
        ("The red cup.", "red cup", {"options": [], "truth": "cup"}, False),
        ("red cup", "blue cup", {"options": [], "truth": "cup"}, True),
        ("red cup", None, {"options": [], "truth": "cup"}, True),
        ("B", "(b) it rolls off", {"options": [], "truth": "B"}, False),
        ("B", "so C", {"options": [], "truth": "B"}, True),
    ],
)
def test_answers_are_compared_by_what_they_choose(one: str, other: str, question: dict[str, Any], changed: bool) -> None:
    a, b = (Run(Path("run"), {}, [record(answer=answer, **question)]) for answer in (one, other))
    assert compare(a, b)["all"]["changed"] == compare(b, a)["all"]["changed"] == float(changed)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (run([1.0, 1.0], "b"), r"^b: has other rows than a \(2 and 3\)"),
        (run([1.0] * 3, "b", truth="top"), "^b: row 0 has the truth 'top', in a it is 'left'"),
        (run([1.0] * 3, "b", id="other"), "row 0 has the id 'other', in a it is 'q0'"),
        (run([1.0] * 3, "b", options=["left"]), r"row 0 has the options \['left'\]"),
        (run([1.0] * 3, "b", split="3-hop"), "row 0 has the split '3-hop', in a it is '1-hop'"),
        (run([1.0] * 3, "b", scores={"answer": 1.0}), r"the scores \['answer'\], in a it is \['accuracy'\]"),
    ],
)
def test_runs_of_other_questions_are_refused_by_what_differs(other: Run, differs: str) -> None:
    with pytest.raises(RunError, match=differs):
        compare(run([1.0] * 3), other)
    with pytest.raises(RunError, match=differs):
        aggregate([run([1.0] * 3), other])


def test_prompts_may_differ() -> None:
    compare(run([1.0] * 3), run([1.0] * 3, prompt_sha256="another"))


def test_several_runs_have_each_mean_and_the_deviation_between_them() -> None:
    rows = aggregate([run([1, 1, 0, 0]), run([1, 0, 0, 0]), run([1, 1, 1, 1])])
    score = rows["all"]["scores"]["accuracy"]
    assert (rows["all"]["n"], rows["all"]["runs"], rows["2-hop"]["n"]) == (4, 3, 2)
    assert score["each"] == [0.5, 0.25, 1.0]
    assert score["mean"] == pytest.approx(1.75 / 3)
    # Deviations from the mean 7/12 are -1/12, -4/12 and 5/12: squares 42/144 over n - 1 = 2.
    assert score["deviation"] == pytest.approx(math.sqrt(42 / 144 / 2))
    assert rows["2-hop"]["scores"]["accuracy"]["each"] == [0.5, 0.0, 1.0]


def test_one_run_is_no_aggregate() -> None:
    with pytest.raises(RunError, match="1 runs have no deviation"):
        aggregate([run([1.0])])


def test_runs_that_agree_leave_the_interval_of_the_questions() -> None:
    values = [1.0] * 60 + [0.0] * 40
    interval = aggregate([run(values)] * 3)["all"]["scores"]["accuracy"]["interval"]
    assert interval == pytest.approx(list(bootstrap_interval(values)), abs=0.011)


def test_questions_that_agree_leave_the_interval_of_the_runs() -> None:
    # Two draws of the runs 0 and 1 have the means 0, 0.5 and 1 with chances 1/4, 1/2 and 1/4.
    assert aggregate([run([0.0] * 9), run([1.0] * 9)])["all"]["scores"]["accuracy"]["interval"] == [0.0, 1.0]


def test_the_interval_has_both_sources() -> None:
    def spread(count: int) -> np.ndarray:
        """With a mean of 0 of which the deviation is 1."""
        values = np.linspace(-1, 1, count)
        return values / values.std() * math.sqrt(count)

    # The mean of the sum varies by 1 + 1, the variances of the means of questions and of runs.
    interval = both_ways(spread(150)[:, None] + spread(12))
    assert interval == pytest.approx((-1.96 * math.sqrt(2), 1.96 * math.sqrt(2)), rel=0.05)


def cells(table: Any) -> dict[str, list[str]]:
    return {str(column.header): list(column.cells) for column in table.columns}


def test_the_tables_show_the_figures() -> None:
    a, b = run([1, 0, 1, 0]), run([1, 1, 1, 0])
    scores, alone = comparison_tables(compare(a, b), "text", "latent")
    shown, right = cells(scores), cells(alone)
    assert scores.title == "latent (B) against text (A)" and shown["split"] == ["1-hop", "2-hop", "all"]
    assert (shown["A"], shown["B"]) == (["1.000", "0.000", "0.500"], ["1.000", "0.500", "0.750"])
    assert (right["only A right"], right["only B right"], right["McNemar p"]) == (["0"] * 3, ["0", "1", "1"], ["1"] * 3)
    assert shown["B - A (95 %)"][2].startswith("0.250 (0.000 to ")
    means, each = map(cells, aggregate_tables(aggregate([a, b]), "seeds"))
    assert (each["run 1"], each["run 2"]) == (["1.000", "0.000", "0.500"], ["1.000", "0.500", "0.750"])
    shown = means
    assert shown["runs"] == ["2"] * 3
    assert shown["std"][2] == f"{0.25 / math.sqrt(2):.3f}"
