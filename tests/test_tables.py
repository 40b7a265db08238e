"""Tables that are piped."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from future_l1_verl.evaluation.comparison import aggregate_tables, comparison_tables
from future_l1_verl.evaluation.scoring import as_tables

SPLITS = st.sets(st.sampled_from(["1-hop", "2-hop", "3-hop", "counting"])).map(lambda names: {*names, "all"})
SCORES = st.sets(st.sampled_from(["accuracy", "reasoning", "answer", "average"]), min_size=1)
INTERVAL = [-0.123, 0.456]


@given(SPLITS, SCORES, st.integers(1, 99_999))
def test_no_line_of_figures_is_folded(splits: set[str], names: set[str], n: int) -> None:
    """The width of a pipe is 80; what is longer is folded by rich, a title too."""
    scores = {name: {"mean": 0.123, "interval": INTERVAL} for name in names}
    answers = {"n": n, "missing": n, "scores": scores, "parsed": 0.5, "cut": 0.5, "spans": 10.0, "latents": 100.0}
    answers |= {"majority": 0.25, "reasoning_true": 0.5}
    differences = {name: {"a": 0.1, "b": 0.1, "difference": -0.123, "interval": INTERVAL} for name in names}
    compared = {"n": n, "changed": 0.5, "scores": differences, "mcnemar": {"only_a": n, "only_b": n, "p": 1.23e-45}}
    seeds = {name: {"each": [0.1] * 5, "mean": 0.1, "deviation": 0.1, "interval": INTERVAL} for name in names}
    aggregated = {"n": n, "runs": 5, "scores": seeds}
    tables = [
        *as_tables(dict.fromkeys(splits, answers), "model"),
        *comparison_tables(dict.fromkeys(splits, compared), "a" * 20, "b" * 20),
        *aggregate_tables(dict.fromkeys(splits, aggregated), "5 runs"),
    ]
    widths = [Console(width=1000).measure(table).maximum for table in tables]
    assert max(widths) <= 80, widths
