"""Marks from 0 to 5 for the reasoning and the answer of a reply, by a judge, as TwiFF-Bench scores (paper section 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from future_l1_verl.latents.tokens import CONTROL_TOKENS
from future_l1_verl.rewards.judge import Judge
from future_l1_verl.rewards.judge.verdict import json_pairs

BEST = 5
TEMPLATE = Path(__file__).with_name("marks_prompt.txt").read_text(encoding="utf-8")

_ANSWER = re.compile(r"<answer>.*?</answer>", re.DOTALL)
_CONTROL = re.compile(f"(?:{'|'.join(map(re.escape, CONTROL_TOKENS))})+")


@dataclass(frozen=True)
class Marks:
    """Whole numbers from 0 to `BEST`."""

    reasoning: int
    answer: int


async def mark(judge: Judge, question: str, reasoning: str, answer: str, truth: str) -> Marks | None:
    """The judge's marks; None if every attempt failed. Raises JudgeUnavailable as `Judge.ask` does."""
    parts = {"question": question, "truth": truth, "answer": answer, "reasoning": reasoning}
    found = await judge.ask(TEMPLATE, parts, parse_marks)
    return None if found is None else Marks(**found)


def parse_marks(reply: str) -> dict[str, int] | None:
    """The two marks in a judge's reply, by name; None unless it is one JSON object, maybe fenced, of just these two."""
    pairs = json_pairs(reply)
    if pairs is None or sorted(name for name, _ in pairs) != ["answer", "reasoning"]:
        return None
    # type(): True is an int for isinstance.
    return dict(pairs) if all(type(value) is int and 0 <= value <= BEST for _, value in pairs) else None


def reasoning_text(reply: str) -> str:
    """A reply without its ``<answer>``; each latent span is one space."""
    return _CONTROL.sub(" ", _ANSWER.sub("", reply)).strip()
