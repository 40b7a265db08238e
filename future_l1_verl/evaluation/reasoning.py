"""Whether the reasoning of a reply is true, where the data say what is."""

from __future__ import annotations

import re

from future_l1_verl.rewards.answer import normalise

_REASON = re.compile(r"<reason>(.*?)</reason>", re.DOTALL)


def reasons(text: str) -> list[str]:
    """The texts of all ``<reason>`` of a reply, in order."""
    return [normalise(reason) for reason in _REASON.findall(text)]


def is_true(reply: str, response: str) -> bool:
    """Whether a reply gives the reasons of ``response``, all of them, in order and no others.

    For rows whose reasons can be said in one way only, as those of the synthetic set: the object that the question is
    about, and each thing that it hits.
    """
    return reasons(reply) == reasons(response)
