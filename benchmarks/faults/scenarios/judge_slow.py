"""A judge that answers only after its time-out, and rightly then."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from chat_server import says
from judging import UNIT, Once, outages

DONE = "the judge answers after its time-out, up to 12 answers or all from then on (2 s, two attempts)"
TIMEOUT = 2.0  # seconds
__all__ = ["DONE", "UNIT", "prepared"]


def prepared(work: Path) -> AbstractContextManager[Once]:
    return outages(lambda: replace(says("no"), after=1.5 * TIMEOUT), TIMEOUT)
