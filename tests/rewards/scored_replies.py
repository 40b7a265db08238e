"""Replies of the answer tests, how they are scored, and a judge that is out of order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chat_server import says, serving
from test_answer import LETTER_ALONE, LETTER_ANNOUNCED, LETTER_IN_MARKUP, LETTER_WITH_REASON, LETTER_WITH_TEXT, OPTIONS

from future_l1_verl.rewards.score import compute_score_sync

LETTERS = [*LETTER_ALONE, *LETTER_IN_MARKUP, *LETTER_ANNOUNCED, *LETTER_WITH_TEXT, *LETTER_WITH_REASON]
ANSWERS = [*LETTERS, "C", "left", "", "B or C", "I think B, I think B, I think B"]
REPLIES = [*ANSWERS, *(f"<think>so</think><answer>{answer}</answer>" for answer in ANSWERS[::3]), r"We add.\n\boxed{B}"]
SETTINGS = {"reason_tag": "think", "repetition": 0.5, "repetition_ngram": 2}
ROW = {"question": "Where does it hit?", "options": OPTIONS}


def expected(extra: dict[str, Any] | None = ROW) -> list[float]:
    """What `compute_score` says of each of `REPLIES`, "B" being right."""
    found = [compute_score_sync("sums", reply, "B", extra, **SETTINGS)["score"] for reply in REPLIES]
    assert len(found) >= 60 and len(set(found)) >= 4
    return found


@contextmanager
def outages() -> Iterator[dict[str, Any]]:
    """Settings with a judge that never gives a verdict; and it is asked about everything."""
    with serving() as server:
        server.script = lambda prompt, nth: says("I cannot say.")
        yield {"judge": {"url": server.url, "model": "m", "attempts": 1, "max_failure_rate": 1.0, "mode": "judge_only"}}
