"""Coroutines for callers that are not: they run in one event loop a process, which keeps a judge's connections open."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Returns what a coroutine does, or raises what it raises; the caller waits, even within an event loop of its own."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them return, in their order; raises what the first to fail raises."""
    return list(await asyncio.gather(*coroutines))


@lru_cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of a process: a thread does not live on in a fork."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop
