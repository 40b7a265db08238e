from dataclasses import asdict

import numpy as np
import pytest

from future_l1_verl.evaluation.progress import condense
from future_l1_verl.evaluation.scoring import bootstrap_interval, summarise
from future_l1_verl.rewards.answer import Grade


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


CORRECT, WRONG, UNPARSED = Grade(True, True), Grade(False, True), Grade(False, False)


def record(split: str, grade: Grade, truth: str, spans: list[int]) -> dict:
    return {"split": split, **asdict(grade), "truth": truth, "spans": spans}


def test_splits_are_counted_apart_and_together() -> None:
    summary = summarise(
        [
            record("1-hop", CORRECT, "left", [4]),
            record("1-hop", WRONG, "left", [4, 2]),
            record("1-hop", UNPARSED, "top", []),
            record("2-hop", CORRECT, "right", [1]),
        ]
    )
    one = summary["1-hop"]
    assert (one["n"], one["accuracy"], one["parsed"]) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert one["majority"] == pytest.approx(2 / 3)  # "left" is right twice
    assert (one["spans"], one["latents"], one["with_span"]) == (1.0, pytest.approx(10 / 3), pytest.approx(2 / 3))
    assert (summary["2-hop"]["n"], summary["all"]["n"], summary["all"]["accuracy"]) == (1, 4, 0.5)


def test_progress_shows_a_step_and_hides_the_rest() -> None:
    line = "(pid=1) step:7 - rewards/accuracy/mean:0.25 - perf/x:1 - parity/text_gap_max:np.float64(1e-06)"
    assert condense(line) == "step 7: accuracy 0.25, parity gap 1e-06"
    assert condense("loading weights") is None
