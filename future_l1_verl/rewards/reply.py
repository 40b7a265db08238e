r"""Finds the answer of a reply: behind its thoughts, in ``<answer>``, in ``\boxed{}``, or all that is left of it."""

from __future__ import annotations

import re

from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.boxed import boxes
from future_l1_verl.rewards.shape import TAGS, Tags

_THINK = "think"


def said(reply: str, tags: Tags = TAGS) -> str | None:
    r"""The answer of a reply, None if it has none.

    Reasons that are closed, and what stands between ``<think>`` and ``</think>``, are no part of the answer; nor is anything
    behind a ``<think>`` that is not closed, or before a ``</think>`` whose other tag was a part of the prompt. Of what is left,
    the answer is what stands in the answer's tags (see `answer_text`) if there is one of them, else in the last ``\boxed{}``,
    else all of it.
    """
    for tag in {_THINK, tags.reason}:
        reply = re.sub(rf"<{tag}>((?!<{tag}>).)*?</{tag}>", "", reply, flags=re.DOTALL)
    reply = reply.rpartition(f"</{_THINK}>")[2].partition(f"<{_THINK}>")[0]
    if f"<{tags.answer}>" in reply or f"</{tags.answer}>" in reply:
        return answer_text(reply, tags.answer)
    found = [content for _, _, content in boxes(reply)]
    return (found[-1] if found else reply.strip()) or None
