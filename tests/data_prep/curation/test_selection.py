from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.curation.selection import Rule, Scored, SelectionError, first_kept, join

FILES = (Path("pool.parquet"), Path("scored"))
COUNTS = pa.schema([("id", pa.string()), ("base_correct", pa.int32()), ("hint_correct", pa.int32()), ("rollouts", pa.int32())])


def counts(rows):
    """``rows`` of id, base, hint, with 8 rollouts."""
    return pa.Table.from_pylist([dict(zip(COUNTS.names, (*row, 8), strict=True)) for row in rows], COUNTS)


def ids(names):
    return pa.chunked_array([pa.array(names, pa.string())])


def scored(pairs):
    base, hint = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))
    return Scored(np.arange(len(pairs)), base, hint, 8)


correct = st.integers(0, 8)


@given(st.lists(st.tuples(correct, correct), min_size=1, max_size=60), st.integers(0, 8), st.integers(-8, 8))
def test_the_ranking_is_that_of_a_search_by_hand(pairs, max_base, min_gain):
    left = [i for i, (base, hint) in enumerate(pairs) if base <= max_base and hint - base >= min_gain]
    expected = []
    while left:
        best = left[0]
        for i in left:
            (base, hint), (best_base, best_hint) = pairs[i], pairs[best]
            if hint - base > best_hint - best_base or (hint - base == best_hint - best_base and base < best_base):
                best = i
        expected.append(best)
        left.remove(best)
    assert Rule(1, max_base, min_gain).ranking(scored(pairs)).tolist() == expected


def test_the_papers_rule_on_its_borders():
    #        gain 2   base 7  gain 1  gain 8  gain 2, base 6  negative
    pairs = [(0, 2), (7, 8), (3, 4), (0, 8), (6, 8), (5, 1)]
    assert Rule().ranking(scored(pairs)).tolist() == [3, 0, 4]


@given(st.permutations(list(range(12))), st.permutations(list(range(12))))
def test_the_order_of_files_does_not_matter(candidates, shards):
    rows = [(f"c{i:02d}", i % 3, 3 + i % 2) for i in range(12)]

    def chosen(pool, order):
        table, left_out = join(ids(pool), counts([rows[i] for i in order]), FILES)
        assert not left_out
        return [pool[table.row[index]] for index in Rule().ranking(table)]

    # Gains: i % 6 = 0: 3, 1: 3, 2: 1, 3: 4, 4: 2, 5: 2; base correct: i % 3.
    expected = ["c03", "c09", "c00", "c06", "c01", "c07", "c04", "c10", "c05", "c11"]
    assert chosen([f"c{i:02d}" for i in candidates], shards) == expected


def test_a_candidate_without_all_verdicts_is_left_out_and_named():
    rows = [("a", None, 8), ("b", 0, 8), ("c", 0, None), ("d", None, None)]
    found, left_out = join(ids(["d", "c", "b", "a"]), counts(rows), FILES)
    assert left_out == {"a": "base", "c": "hint", "d": "base, hint"}
    assert (found.row.tolist(), found.base.tolist(), found.hint.tolist(), found.rollouts) == ([2], [0], [8], 8)


def test_candidates_that_were_not_scored_stay_out():
    found, left_out = join(ids(["z", "y", "x"]), counts([("y", 1, 4)]), FILES)
    assert (found.row.tolist(), found.gain.tolist(), left_out) == ([1], [3], {})


@pytest.mark.parametrize(
    ("pool", "rows", "message"),
    [
        (["a", "b", "b"], [("a", 0, 8)], r"pool.parquet: id: 1 occur more than once, the first is 'b'"),
        (["a", "b"], [("a", 0, 8), ("b", 0, 8), ("a", 0, 8)], r"scored: id: 1 occur more than once, the first is 'a'"),
        (["a"], [("a", 0, 8), ("x", 0, 8), ("y", 0, 8)], r"scored: id: 2 are not among .* pool.parquet, the first is 'x'"),
        (["a"], [("a", None, 8)], r"scored: of the 1 candidates none has all its verdicts"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(pool, rows, message):
    with pytest.raises(SelectionError, match=message):
        join(ids(pool), counts(rows), FILES)


def test_different_numbers_of_rollouts_are_refused():
    rows = [{"id": "a", "base_correct": 0, "hint_correct": 8, "rollouts": 8}]
    rows += [{"id": "b", "base_correct": 0, "hint_correct": 4, "rollouts": 4}]
    with pytest.raises(SelectionError, match=r"there are \[4, 8\] rollouts"):
        join(ids(["a", "b"]), pa.Table.from_pylist(rows, COUNTS), FILES)


@pytest.mark.parametrize("setting", [{"top": 0}, {"max_base": -1}])
def test_settings_that_keep_nothing_are_refused(setting):
    with pytest.raises(SelectionError, match=next(iter(setting))):
        Rule(**setting)


def test_a_gain_beyond_the_rollouts_is_refused():
    with pytest.raises(SelectionError, match="min_gain 9 cannot be reached with 8 rollouts"):
        Rule(min_gain=9).ranking(scored([(0, 8)]))


@given(st.lists(st.booleans(), max_size=2000), st.integers(0, 2000))
def test_the_first_kept_are_found_without_looking_further(keep, wanted):
    order = np.arange(len(keep))[::-1]
    looked_at = []

    def kept(part):
        looked_at.extend(part.tolist())
        return np.array([keep[i] for i in part], dtype=bool)

    found = first_kept(order, wanted, kept).tolist()
    good = [i for i in reversed(range(len(keep))) if keep[i]]
    assert found == good[:wanted]
    needed = order.tolist() if len(good) < wanted else order.tolist()[: order.tolist().index(found[-1]) + 1] if found else []
    assert looked_at == needed
