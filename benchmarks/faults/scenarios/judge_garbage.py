"""A judge whose replies are no verdicts."""

from __future__ import annotations

import json
import random
from contextlib import AbstractContextManager
from pathlib import Path

from chat_server import Reply, says
from judging import UNIT, Once, outages

DONE = "the judge replies with garbage, to up to 12 answers or to all from then on (two attempts)"
__all__ = ["DONE", "UNIT", "prepared"]
REPLIES = (
    *("", "\0\0\0", "{garbage", "<html>502 Bad Gateway</html>", "[]", "null", "[" * 20_000, '{"choices": []}'),
    *(json.dumps({"choices": [{"message": message}]}) for message in ({}, None, {"content": 1}, {"content": ["no"]})),
)
WORDS = (
    None,
    "",
    "no idea",
    "yes and no",
    "nobody knows",
    '{"correct": "no"}',
    "no\x00yes",
    "No. It is correct.",
    "n" * 100_000,
)


def garbage() -> Reply:
    return random.choice(
        [Reply(random.choice(REPLIES)), says(random.choice(WORDS)), Reply("no", random.choice((500, 502, 503)))]
    )


def prepared(work: Path) -> AbstractContextManager[Once]:
    return outages(garbage)
