"""Errors that stop trainers which would score a reply 0.0 if its reward function fails."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Unscored(BaseException):
    """A reply could not be scored; the message has the reason. Not an Exception: some trainers catch those and score 0."""


def number(score: float | None) -> float:
    """Returns a score for a trainer that treats None as 0. Raises Unscored if it is None (see ``no_verdict=None``)."""
    if score is None:
        raise Unscored("no verdict, and this trainer would score None 0: choose no_verdict=raise or a number")
    return score


@contextmanager
def never_zero() -> Iterator[None]:
    """Raises Unscored for any exception in the block, and for a cancellation: a trainer's own time limit cancels."""
    try:
        yield
    except asyncio.CancelledError as error:
        raise Unscored("the trainer's time limit for a reward was reached") from error
    except Exception as error:
        raise Unscored(f"{type(error).__name__}: {error}") from error
