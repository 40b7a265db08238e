"""Words that many messages share."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """Returns a question that names the most similar of the ``known`` names, behind ``prefix``; nothing if none is similar.

    ``cutoff`` is the least similarity, difflib's ratio.
    """
    found = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {prefix}{found[0]}?" if found else ""
