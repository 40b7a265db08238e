"""What all answers to a prompt have in common, made once a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

# By name, for the task that runs a prompt and those it starts, one for each answer.
_made: ContextVar[dict[str, asyncio.Future]] = ContextVar("made")


def begin() -> None:
    """In the task of a prompt, before any of its answers: nothing is made yet."""
    _made.set({})


async def once(name: str, make: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """``make(*args, **kwargs)`` of the first answer that asks for ``name``, or what it raised; the others wait for it."""
    made = _made.get()
    if name not in made:
        made[name] = asyncio.ensure_future(make(*args, **kwargs))
    return await made[name]
