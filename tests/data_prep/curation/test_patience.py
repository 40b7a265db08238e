"""Asking a server that fails: what is asked again, and what an outage costs."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.curation.patience import Outage, Patience, ask_all

NOW = Patience(rounds=3, outages=5, outage=0.2, pause=0.001)


async def well() -> None:
    return None


class Asked:
    """Gives None for its first ``failures`` times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.times = failures, 0

    async def __call__(self) -> int | None:
        self.times += 1
        return self.times if self.times > self.failures else None


def usable(result: int | None) -> bool:
    return result is not None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_each_is_asked_until_it_answers_and_at_most_as_often_as_there_are_rounds(failures: list[int]) -> None:
    asks = [Asked(count) for count in failures]
    results = asyncio.run(ask_all(asks, usable, well, NOW))
    assert results == [count + 1 if count < NOW.rounds else None for count in failures]
    assert [ask.times for ask in asks] == [min(count + 1, NOW.rounds) for count in failures]


@given(st.integers(1, 4), st.integers(0, 2))
def test_rounds_that_end_in_an_outage_use_up_no_attempt(outages: int, failures: int) -> None:
    """The server is found away once after each of the first rounds; then the thing itself fails a few times more."""
    looks = iter(["away", None] * outages)

    async def wrong() -> str | None:
        return next(looks, None)

    ask = Asked(outages + failures)
    assert asyncio.run(ask_all([ask], usable, wrong, NOW)) == [outages + failures + 1]


def test_what_brings_the_server_down_each_time_is_given_up() -> None:
    looks = itertools.cycle(["away", None])

    async def wrong() -> str | None:
        return next(looks)

    ask = Asked(1000)
    assert asyncio.run(ask_all([ask, Asked(0)], usable, wrong, NOW)) == [None, 1]
    assert ask.times == NOW.outages


def test_what_waiting_cannot_mend_ends_it_at_once() -> None:
    async def wrong() -> str:
        raise PermissionError("another key, please")

    with pytest.raises(PermissionError, match="another key"):
        asyncio.run(ask_all([Asked(1)], usable, wrong, NOW))


def test_a_server_that_stays_away_is_named() -> None:
    async def wrong() -> str:
        return "the judge at home: nobody there"

    with pytest.raises(Outage, match=r"no answer for 0 s; start again when it is back\. the judge at home: nobody there"):
        asyncio.run(ask_all([Asked(1)], usable, wrong, NOW))
