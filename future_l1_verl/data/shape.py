"""Converts a response of any data set to the paper's shape (section 1)."""

import re

from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.shape import SPAN, has_shape

_MARKER = re.compile(r"THOUGHT \d+:\s*")
_TAG = re.compile(r"<\s*(/?)\s*(rimage|image|ans|answer|reason)\s*/?\s*>", re.IGNORECASE)
_OURS = {"rimage": "image", "ans": "answer"}
_ANSWER = re.compile(r"<answer>.*?</answer>", re.DOTALL)
_REASON = re.compile(r"\s*(?:</?reason>\s*)+")


def unified(text: str) -> str:
    """Returns a text with our tags: ``<image>`` for TwiFF's ``<rimage>``, ``<answer>`` for ``<ans>`` or ``< Answer >``, and
    without "THOUGHT n:"."""
    return _TAG.sub(lambda tag: f"<{tag[1]}{_OURS.get(tag[2].lower(), tag[2].lower())}>", _MARKER.sub("", text))


def in_shape(response: str, answer: str, future: int) -> str:
    """Returns ``<image><reason>...</reason>`` for each of ``future`` frames, after a reason if the response starts with one,
    then ``<answer>...</answer>``; a response of that shape with that answer is returned unchanged.

    The reason of a frame is the text between it and the next. Raises ValueError, with a colon before the details, if a frame
    has no reason or the response cannot be given this shape.
    """
    if not future:
        raise ValueError("no future frame")
    if not response:
        raise ValueError("no reasoning")
    if has_shape(response.replace("<image>", SPAN), "interleaved") and answer_text(response) == answer:
        return response
    after = _REASON.sub("", response.partition("</answer>")[2]).strip()
    if after and "<image>" not in after:
        raise ValueError(f"response goes on after its answer: {after!r:.80}")
    lead, *reasons = [_REASON.sub(" ", _ANSWER.sub("", part)).strip() for part in response.split("<image>")]
    if silent := [number for number, reason in enumerate(reasons, start=1) if not reason]:
        raise ValueError(f"future frame without reasoning: {silent} of {future}")
    told = "".join(f"<image><reason>{reason}</reason>" for reason in reasons)
    said = (f"<reason>{lead}</reason>" if lead else "") + told + f"<answer>{answer}</answer>"
    if not has_shape(said.replace("<image>", SPAN), "interleaved"):
        raise ValueError(f"other tags or control tokens in the response: {said!r:.200}")
    return said
