import pytest
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.rewards.repetition import repetition

tokens = st.lists(st.integers(0, 3), max_size=60)


@pytest.mark.parametrize(
    ("text", "n", "value"),
    [
        ("", 2, 0),
        ("a b c", 3, 0),  # one 3-gram
        ("a b c d", 2, 0),
        ("a b a b", 2, -1 / 3),  # ab ba ab
        ("a b a b a b", 2, -3 / 5),  # ab ba ab ba ab
        ("a a a a a", 1, -4 / 5),
        ("a a a a a", 4, -1 / 2),
        ("a b b a", 1, -1 / 2),
    ],
)
def test_derived_values(text: str, n: int, value: float) -> None:
    words = text.split()
    assert repetition(words, n) == pytest.approx(value)
    assert repetition([ord(word) for word in words], n) == pytest.approx(value)


def test_twenty_is_the_default() -> None:
    assert repetition(list(range(25)) * 2) == pytest.approx(-6 / 31)  # of 50 - 19 = 31, the last 25 - 19 = 6 are repeats


@given(tokens, st.integers(1, 20))
def test_it_is_the_share_of_ngrams_seen_before(tokens: list[int], n: int) -> None:
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    again = [gram in grams[:i] for i, gram in enumerate(grams)]
    assert repetition(tokens, n) == pytest.approx(-sum(again) / len(again) if again else 0)
    assert -1 <= repetition(tokens, n) <= 0


@given(tokens, st.integers(1, 20))
def test_a_verbatim_copy_counts_in_full(tokens: list[int], n: int) -> None:
    copied, doubled = len(tokens) - n + 1, 2 * len(tokens) - n + 1
    if copied > 0:
        assert repetition(tokens * 2, n) <= -copied / doubled + 1e-9


@given(tokens)
def test_of_single_tokens_a_copy_never_raises_it(tokens: list[int]) -> None:
    assert repetition(tokens * 2, 1) <= repetition(tokens, 1) + 1e-9


def test_of_longer_ngrams_a_copy_can_raise_it_by_the_new_ones_across_the_seam() -> None:
    tokens = [0, 1] * 20 + [0]  # 22 of them with 2 distinct; doubled, 63 with 2 + 19 distinct
    assert repetition(tokens, 20) == pytest.approx(-20 / 22)
    assert repetition(tokens * 2, 20) == pytest.approx(-42 / 63)


def test_n_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        repetition([1, 2], 0)
