"""What all answers to a prompt have in common: made once a prompt, and known by one name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Prompt:
    uid: str
    made: dict[str, asyncio.Future] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


# Of the task that runs a prompt and those it starts, one for each answer.
_current: ContextVar[_Prompt] = ContextVar("prompt")


def begin(uid: str) -> None:
    """In the task of a prompt, before any of its answers; ``uid`` is verl's name for it."""
    _current.set(_Prompt(uid))


def uid() -> str:
    return _current.get().uid


def first(name: str) -> bool:
    """Whether this is the first time that one of the answers asks for ``name``."""
    done = _current.get().done
    if name in done:
        return False
    done.add(name)
    return True


async def once(name: str, make: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """``make(*args, **kwargs)`` of the first answer that asks for ``name``, or what it raised; the others wait for it."""
    made = _current.get().made
    if name not in made:
        made[name] = asyncio.ensure_future(make(*args, **kwargs))
    return await made[name]
