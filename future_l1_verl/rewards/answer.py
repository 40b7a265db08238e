r"""R_acc by rule: reads the answer of a reply and compares it with the right one.

An answer is read in this order: an option's whole text, the letter grammar (letters.py), an option's text inside the answer,
a number (quantity.py), plain text (text.py). An answer that names nothing, or two things, is *unparsed*: it scores like a
wrong one but is counted separately, since its fault is of form and not of content. Needs neither verl nor vLLM.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from future_l1_verl.rewards.letters import LETTERS, denied, letter_alone, letters
from future_l1_verl.rewards.options import chosen_option, given, only, require_truth
from future_l1_verl.rewards.quantity import same_number
from future_l1_verl.rewards.text import normalise, plain, without_lead_in

__all__ = ["LETTERS", "Grade", "answer_text", "chosen_option", "grade", "normalise", "truth_text"]

TAG = re.compile(r"</?[A-Za-z][\w-]*(?:\s+[\w-]+\s*=[^<>]*)?\s*/?>|<\|[^<>|]*\|>")


@dataclass(frozen=True)
class Grade:
    """``parsed``: the answer names one definite thing. ``correct``: it is the right one; ValueError if it was not parsed."""

    correct: bool
    parsed: bool

    def __post_init__(self) -> None:
        if self.correct and not self.parsed:
            raise ValueError("an answer that was not parsed cannot be correct")


def answer_text(reply: str, tag: str = "answer") -> str | None:
    """Returns the text in the only ``<answer>...</answer>`` of a reply, without the whitespace at its ends.

    None if there is no such pair, if a tag occurs twice or without its counterpart, or if there is nothing between them.
    ``tag`` is another name for ``answer``.
    """
    if reply.count(f"<{tag}>") != 1 or reply.count(f"</{tag}>") != 1:
        return None
    text, closed, _ = reply.partition(f"<{tag}>")[2].partition(f"</{tag}>")
    return text.strip() or None if closed else None


def truth_text(value: object) -> str:
    """Returns the right answer of a data set, a text or a number, without the ``<answer>...</answer>`` around it.

    Raises ValueError, saying why, if it is neither a text nor a number, is empty or not finite, or has another tag.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"the right answer must be finite, not {value}")
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"the right answer must be a text or a number, not {type(value).__name__}: {value!r:.80}")
    text = answer_text(value) or value.strip()
    if not text:
        raise ValueError("the right answer is empty")
    if tag := TAG.search(text):
        raise ValueError(f"the right answer has a tag other than one pair of <answer> and </answer>: {tag[0]} in {text!r:.80}")
    return text


def grade(answer: str, truth: str, options: Sequence[str] | Mapping[str, str] | None = None) -> Grade:
    """Compares an answer with ``truth``; of a text with ``<answer>`` tags only the part between them counts.

    With ``options``, a list or a mapping from letters, the question is multiple choice and ``truth`` is the right option's
    letter or text. Without, a ``truth`` that is one letter from A to J means that the question contains the options: the
    answer's letter is compared. Any other ``truth`` is for an open answer, which is right if equal as text (``normalise``) or
    as a number (``same_number``), and parsed if not empty.

    Raises ValueError if `texts` refuses the options, or if ``truth`` is not one of them.
    """
    answer, truth = _untagged(answer), _untagged(truth)
    if texts := given(options):
        choice = chosen_option(answer, texts)
        return Grade(correct=choice == require_truth(truth, texts), parsed=choice is not None)
    if letter := letter_alone(plain(truth)):
        found = letters(plain(answer))
        named = None if denied(plain(answer), found) else only(found.values())
        return Grade(correct=named == letter, parsed=named is not None)
    answer = without_lead_in(answer)
    equal = normalise(answer) == normalise(truth) or same_number(answer, truth)
    return Grade(correct=bool(answer) and equal, parsed=bool(answer))


def _untagged(text: str) -> str:
    return answer_text(text) or "" if "<answer>" in text or "</answer>" in text else text
