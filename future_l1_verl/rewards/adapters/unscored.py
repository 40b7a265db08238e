"""Errors that get past trainers who give every reply that fails to be scored a 0.0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Unscored(BaseException):
    """A reply could not be scored; the message has the reason. No ``Exception``, for some trainers catch those and score 0."""


def number(score: float | None) -> float:
    """Returns a score for a trainer that takes None for 0. Raises Unscored if it is None, as ``no_verdict=None`` makes it."""
    if score is None:
        raise Unscored("no verdict, and this trainer would score None 0: choose no_verdict=raise or a number")
    return score


@contextmanager
def never_zero() -> Iterator[None]:
    """Raises Unscored for any exception, and for a cancellation, which is how a trainer's own time limit arrives."""
    try:
        yield
    except asyncio.CancelledError as error:
        raise Unscored("the trainer's time limit for a reward was reached") from error
    except Exception as error:
        raise Unscored(f"{type(error).__name__}: {error}") from error
