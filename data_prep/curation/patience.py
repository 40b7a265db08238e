"""Sends many requests to a server, and waits for it during outages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """``rounds``: the most attempts at a request while the server works; ``outages``: the number of outages after which a
    request is given up, in case it causes them; ``outage``: the longest outage in seconds before the run ends; ``pause``:
    seconds between two rounds, and between two checks of whether the server is back."""

    rounds: int = 3
    outages: int = 5
    outage: float = 1800.0
    pause: float = 5.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.outages < 1:
            raise ValueError(f"rounds and outages must be at least 1, not {self.rounds} and {self.outages}")


class Outage(RuntimeError):
    """A server was away for too long; the message has its name and the last error. Finished shards are kept."""


async def ask_all(
    asks: Sequence[Callable[[], Awaitable[T]]],
    usable: Callable[[T], bool],
    wrong: Callable[[], Awaitable[str | None]],
    patience: Patience,
) -> list[T]:
    """Returns the results of ``asks``, in order; repeats those that are not ``usable``.

    ``wrong`` checks the server: None if it works, else what is wrong with it; it raises errors that waiting cannot fix. A round
    with failures counts only if the server works after it, so that an outage does not use up attempts. Raises Outage.
    """
    results = dict(enumerate(await asyncio.gather(*(ask() for ask in asks))))
    rounds = outages = 0
    while failed := [number for number, result in results.items() if not usable(result)]:
        if await waited(wrong, patience):
            outages += 1
        else:
            rounds += 1
        if rounds == patience.rounds or outages == patience.outages:
            break
        await asyncio.sleep(patience.pause)
        again = await asyncio.gather(*(asks[number]() for number in failed))
        results |= dict(zip(failed, again, strict=True))
    return [results[number] for number in range(len(asks))]


async def waited(wrong: Callable[[], Awaitable[str | None]], patience: Patience) -> bool:
    """Waits until the server works; returns whether it had to wait. Raises Outage, and what ``wrong`` raises."""
    since, away = time.monotonic(), False
    while (problem := await wrong()) is not None:
        if not away:
            print(f"waiting for up to {patience.outage:.0f} s: {problem}", flush=True)
        away = True
        if time.monotonic() - since > patience.outage:
            raise Outage(f"no answer for {patience.outage:.0f} s; start again when it is back. {problem}")
        await asyncio.sleep(patience.pause)
    return away
