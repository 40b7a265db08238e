import pytest
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.rewards.overlong import overlong


@pytest.mark.parametrize(
    ("length", "value"),
    [(0, 0), (1536, 0), (1537, -1 / 512), (1664, -0.25), (1792, -0.5), (2047, -511 / 512), (2048, -1), (2049, -1), (9999, -1)],
)
def test_derived_values_for_2048_tokens_and_a_buffer_of_512(length: int, value: float) -> None:
    assert overlong(length, 2048, 512) == pytest.approx(value)


@given(st.integers(1, 5000).flatmap(lambda limit: st.tuples(st.integers(0, limit), st.just(limit), st.integers(1, limit))))
def test_up_to_the_limit_it_is_the_formula_of_verls_dapo_manager(case: tuple[int, int, int]) -> None:
    length, max_length, buffer = case
    exceeding = length - (max_length - buffer)
    assert overlong(length, max_length, buffer) == min(-exceeding / buffer * 1.0, 0)


@given(st.integers(0, 9000), st.integers(1, 5000))
def test_longer_never_earns_more(length: int, max_length: int) -> None:
    assert -1 <= overlong(length + 1, max_length, max_length) <= overlong(length, max_length, max_length) <= 0


@pytest.mark.parametrize(("max_length", "buffer"), [(10, 0), (10, -1), (10, 11), (0, 0)])
def test_a_buffer_outside_the_limit_is_refused(max_length: int, buffer: int) -> None:
    with pytest.raises(ValueError, match="buffer"):
        overlong(5, max_length, buffer)
