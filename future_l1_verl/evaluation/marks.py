"""Marks the reasoning and the answer of a reply from 0 to 5 by a judge, as in TwiFF-Bench (paper section 5).

Two protocols. ``ours``: the judge sees question and reference answer, and a reply without one ``<answer>`` gets 0 for both.
``reference`` is that of the benchmark's authors: the judge sees the question's pictures, the reference reasoning with its
pictures and the reference answer, and marks a reply without tags as well.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import data_url
from future_l1_verl.data.rows import IMAGE, Row
from future_l1_verl.data.seeing import see
from future_l1_verl.data.shape import unified
from future_l1_verl.latents.tokens import CONTROL_TOKENS
from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.verdict import json_pairs

BEST = 5

_ANSWER = re.compile(r"<answer>.*?</answer>", re.DOTALL)
_TAGS = re.compile(r"</?(?:reason|answer)>")
_CONTROL = re.compile(f"(?:{'|'.join(map(re.escape, CONTROL_TOKENS))})+")


@dataclass(frozen=True)
class Marks:
    """The two marks, whole numbers from 0 to `BEST`."""

    reasoning: int
    answer: int


async def mark(judge: Judge, question: str, reasoning: str, answer: str, truth: str) -> Marks | None:
    """Returns the judge's marks by our protocol; None if every attempt failed. Raises JudgeUnavailable like `Judge.ask`."""
    parts = {"question": question, "truth": truth, "answer": answer, "reasoning": reasoning}
    found = await judge.ask(_template("marks"), parts, parse_marks)
    return None if found is None else Marks(**found)


async def mark_by_reference(judge: Judge, row: Row, reply: str, max_frames: int) -> Marks | None:
    """Returns the judge's marks by the authors' protocol; None if every attempt failed. Raises RowError if the row's pictures
    cannot be read, JudgeUnavailable like `Judge.ask`."""
    seen = see(row, Clips(), max_frames)
    observed = [frame for item in seen.observed for frame in (item if isinstance(item, list) else [item])]
    reasoning, answer = parted(reply)
    parts = {
        "observed": str(len(observed)),
        "future": str(len(seen.future)),
        "question": row.question,
        "chain": _TAGS.sub("", _ANSWER.sub("", row.response.replace(IMAGE, " "))).strip() or "(none)",
        "truth": row.truth,
        "reasoning": reasoning,
        "answer": answer,
    }
    images = [data_url(frame.image) for frame in (*observed, *seen.future)]
    found = await judge.ask(_template("reference"), parts, parse_scores, images=images)
    return None if found is None else Marks(*found)


def _template(name: str) -> str:
    return Path(__file__).with_name(f"{name}_prompt.txt").read_text(encoding="utf-8")


def parse_marks(reply: str) -> dict[str, int] | None:
    """Returns the two marks in a judge's reply, by name; None unless it is one JSON object, possibly fenced, of just these."""
    pairs = json_pairs(reply)
    if pairs is None or sorted(name for name, _ in pairs) != ["answer", "reasoning"]:
        return None
    return dict(pairs) if all(_is_mark(value) for _, value in pairs) else None


def parse_scores(reply: str) -> list[int] | None:
    """Returns the two marks of ``score`` in a reply; None unless it is one JSON object, possibly fenced, with one ``score``."""
    scores = [value for name, value in json_pairs(reply) or [] if name == "score"]
    if len(scores) != 1 or not isinstance(scores[0], list) or len(scores[0]) != 2:
        return None
    return scores[0] if all(map(_is_mark, scores[0])) else None


def _is_mark(value: object) -> bool:
    return type(value) is int and 0 <= value <= BEST  # True is an int for isinstance


def reasoning_text(reply: str) -> str:
    """Returns a reply without its ``<answer>``; each latent span becomes one space."""
    return _CONTROL.sub(" ", _ANSWER.sub("", reply)).strip()


def parted(reply: str) -> tuple[str, str]:
    """Returns reasoning and answer of any reply: by its ``<answer>`` or ``<ans>``, else at the end of ``<think>``; without
    either all of it is reasoning."""
    reply = unified(reply)
    answer = answer_text(reply)
    if answer is None and "</think>" in reply:
        reply, _, answer = reply.partition("</think>")
    return _TAGS.sub("", reasoning_text(reply)).strip(), (answer or "").strip()
