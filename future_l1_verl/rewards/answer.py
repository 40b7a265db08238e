"""R_acc by rule: which option a reply chooses, and whether it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

LETTERS = "ABCDEFGHIJ"

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# A letter alone or in brackets, with or without the option's text behind a mark: "B", "(b)", "B.", "B: the left wall".
_LETTER = re.compile(
    r"(?:the\s+)?(?:answer\s+is\s+)?(?:option\s+)?[(\[]?([a-j])[)\].:,]?(?:\s+|$)(.*)", re.DOTALL | re.IGNORECASE
)


class Outcome(Enum):
    """``UNPARSED`` earns what ``WRONG`` earns but is counted apart: it says something of the form, not of the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"


def answer_text(reply: str) -> str | None:
    """What stands in the only ``<answer>`` of a reply; None if there is none, or more than one."""
    found = _ANSWER.findall(reply)
    return found[0].strip() if len(found) == 1 else None


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """Index of the option that an answer names, by its text or by its letter; None if it names none or two."""
    texts = [normalise(option) for option in options]
    if normalise(answer) in texts:
        return texts.index(normalise(answer))
    match = _LETTER.fullmatch(answer.strip())
    if match is None:
        return None
    index = LETTERS.index(match[1].upper())
    if index >= len(options) or (match[2] and normalise(match[2]) != texts[index]):
        return None
    return index


def judge_by_rule(reply: str, truth: str, options: Sequence[str] = ()) -> Outcome:
    """Compares the answer of ``reply`` with ``truth``, the right option's text or letter, or an open answer's text.

    Raises ValueError if there are options and ``truth`` is none of them: such a question has no right answer.
    """
    answer = answer_text(reply)
    if not answer:
        return Outcome.UNPARSED
    if not options:
        return Outcome.CORRECT if normalise(answer) == normalise(truth) else Outcome.WRONG
    right = chosen_option(truth, options)
    if right is None:
        raise ValueError(f"the right answer {truth!r} is not among the options {list(options)}")
    choice = chosen_option(answer, options)
    if choice is None:
        return Outcome.UNPARSED
    return Outcome.CORRECT if choice == right else Outcome.WRONG


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends, no leading article."""
    text = " ".join(text.lower().split()).strip(" .,:;!?\"'")
    return re.sub(r"^(?:the|a|an)\s+", "", text)
