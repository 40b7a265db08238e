"""Runs coroutines for synchronous callers, in one event loop per process, which keeps a judge's connections open."""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Returns or raises what a coroutine does; blocks the caller, even inside a running event loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Returns the results of all coroutines, in order; raises what the first to fail raises."""
    return list(await asyncio.gather(*coroutines))


@lru_cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """Returns the event loop of a process: a fork does not inherit the thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop
