"""A judge that goes away midway."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from chat_server import DROPPED
from judging import UNIT, Once, outages

DONE = "the judge goes away midway, for up to 12 answers or for good (two attempts)"
__all__ = ["DONE", "UNIT", "prepared"]


def prepared(work: Path) -> AbstractContextManager[Once]:
    return outages(lambda: DROPPED)
