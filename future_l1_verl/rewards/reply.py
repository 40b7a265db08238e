r"""Finds the answer of a reply, after its thoughts: in ``<answer>``, in ``\boxed{}``, or all the remaining text."""

import re

from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.boxed import boxes
from future_l1_verl.rewards.shape import TAGS, Tags

_THINK = "think"


def said(reply: str, tags: Tags = TAGS) -> str | None:
    r"""Returns the answer of a reply, None if it has none.

    The answer does not include closed reasons, the text between ``<think>`` and ``</think>``, the text after an unclosed
    ``<think>``, or the text before a ``</think>`` whose opening tag was in the prompt. In the rest, the answer is the text in
    the answer's tags (see `answer_text`) if there is such a tag, else in the last ``\boxed{}``, else all of it.
    """
    for tag in {_THINK, tags.reason}:
        reply = re.sub(rf"<{tag}>((?!<{tag}>).)*?</{tag}>", "", reply, flags=re.DOTALL)
    reply = reply.rpartition(f"</{_THINK}>")[2].partition(f"<{_THINK}>")[0]
    if f"<{tags.answer}>" in reply or f"</{tags.answer}>" in reply:
        return answer_text(reply, tags.answer)
    found = [content for _, _, content in boxes(reply)]
    return (found[-1] if found else reply.strip()) or None
