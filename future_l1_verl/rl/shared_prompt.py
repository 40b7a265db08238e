"""Values that all answers to a prompt share: each is made once per prompt, under a name."""

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


# Set in the task that runs a prompt and in the tasks that it starts, one per answer.
_current: ContextVar[_Prompt] = ContextVar("prompt")


def begin(uid: str) -> None:
    """Starts a prompt; call it in the prompt's task, before any answer. ``uid`` is verl's name of the prompt."""
    _current.set(_Prompt(uid))


def uid() -> str:
    return _current.get().uid


def first(name: str) -> bool:
    """Returns whether this is the first time that one of the answers asks for ``name``."""
    done = _current.get().done
    if name in done:
        return False
    done.add(name)
    return True


async def once(name: str, make: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Returns or raises what ``make`` did for the first answer that asked for ``name``; the others wait for it."""
    made = _current.get().made
    if name not in made:
        made[name] = asyncio.ensure_future(make(*args, **kwargs))
    return await made[name]
