"""Answers of a run, as short as a test needs them."""

from typing import Any

from future_l1_verl.evaluation.runs import Record

QUESTION: dict[str, Any] = {
    "split": "1-hop", "prompt_sha256": "", "problem": "Where?", "options": ["left", "right", "top"], "truth": "left",
    "video": "/clip.mp4", "frames": [0], "future": [1], "text": "", "token_ids": [], "roles": "", "spans": [],
    "finish_reason": "stop", "answer": "left", "parsed": True,
}  # fmt: skip


def record(row: int = 0, **changes: Any) -> Record:
    """Right, unless told otherwise."""
    return Record(**{"row": row, "id": f"q{row}", "scores": {"accuracy": 1.0}, **QUESTION, **changes})
