"""Errors that get past trainers who give every reply that fails to be scored a 0.0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Unscored(BaseException):
    """A reply could not be scored; the message has the reason. No ``Exception``, for some trainers catch those and score 0."""


@contextmanager
def never_zero() -> Iterator[None]:
    """Raises Unscored for any exception, and for a cancellation, which is how a trainer's own time limit arrives."""
    try:
        yield
    except asyncio.CancelledError as error:
        raise Unscored("the trainer's time limit for a reward was reached") from error
    except Exception as error:
        raise Unscored(f"{type(error).__name__}: {error}") from error
