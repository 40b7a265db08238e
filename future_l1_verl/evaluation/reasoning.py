"""Checks whether the reasoning of a reply is true, if the data have the true reasons."""

import re

from future_l1_verl.rewards.answer import normalise

_REASON = re.compile(r"<reason>(.*?)</reason>", re.DOTALL)


def reasons(text: str) -> list[str]:
    """Returns the texts of all ``<reason>`` of a reply, in order."""
    return [normalise(reason) for reason in _REASON.findall(text)]


def is_true(reply: str, response: str) -> bool:
    """Returns whether a reply gives all reasons of ``response``, in order, and no others.

    It is meant for rows whose reasons have only one wording, as in the synthetic set: the object of the question, and each
    thing that it hits.
    """
    return reasons(reply) == reasons(response)
