"""Asking a server for many things without taking an outage for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """``rounds``: how often a thing is asked for while the server is well; ``outages``: after how many outages it is given up,
    in case it causes them; ``outage``: seconds that the server may be away before the run ends; ``pause``: seconds between two
    rounds, and between two looks at whether the server is back."""

    rounds: int = 3
    outages: int = 5
    outage: float = 1800.0
    pause: float = 5.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.outages < 1:
            raise ValueError(f"rounds and outages must be at least 1, not {self.rounds} and {self.outages}")


class Outage(RuntimeError):
    """A server stayed away for too long; the message says which and what came last. Finished shards are kept."""


async def ask_all(
    asks: Sequence[Callable[[], Awaitable[T]]],
    usable: Callable[[T], bool],
    wrong: Callable[[], Awaitable[str | None]],
    patience: Patience,
) -> list[T]:
    """The results of ``asks``, in order; those that are not ``usable`` are asked for again.

    ``wrong`` looks at the server itself: None if it is well, else what is wrong with it; it raises what cannot get better by
    waiting. A round in which something failed counts only if the server is well after it, so that an outage uses up no
    attempts. Raises Outage.
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
    """Returns once the server is well: whether it was not at first. Raises Outage, and what ``wrong`` raises."""
    since, away = time.monotonic(), False
    while (problem := await wrong()) is not None:
        if not away:
            print(f"waiting for up to {patience.outage:.0f} s: {problem}", flush=True)
        away = True
        if time.monotonic() - since > patience.outage:
            raise Outage(f"no answer for {patience.outage:.0f} s; start again when it is back. {problem}")
        await asyncio.sleep(patience.pause)
    return away
