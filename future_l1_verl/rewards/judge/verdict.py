"""Reads the verdict in a judge's reply, if there is a usable one."""

import json
import re
from typing import Any

_MARK = r"[\s*_\"'`\u2018-\u201d]"
_VERDICT = re.compile(
    rf"{_MARK}*(?:(?:verdict|answer){_MARK}*:{_MARK}*)?"
    r"(?:(?P<yes>yes|correct|true)|(?P<no>no|incorrect|false))"
    rf"(?:[*_\"'`\u2019\u201d]*(?:[.,;:!]++(?!\w)|\s+[-\u2013(]|\s*[\n\u2014])|{_MARK}*\Z)",
    re.IGNORECASE,
)
_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL | re.IGNORECASE)


def _whole(words: str) -> str:
    """Returns a pattern of one of ``words`` that is not part of a longer word such as "no-one" or "no's"."""
    letter = r"[^\W_]"
    return rf"(?<!{letter})(?<!{letter}[-'\u2019])(?:{words})(?![-'\u2019]?{letter})"


_NEGATED = r"(?:\bnot|n['\u2019]t)\s+(?:\w+\s+)?"
_AGAINST_YES = re.compile(rf"{_whole('no|incorrect|false|wrong')}|{_NEGATED}{_whole('yes|correct|true|right')}", re.IGNORECASE)
_AGAINST_NO = re.compile(_whole("yes|correct|true|is right|are right"), re.IGNORECASE)


def parse_verdict(text: str) -> bool | None:
    """Returns the verdict of a judge's reply; None if the reply is not clear.

    Either the first word, possibly after "Verdict:" or "Answer:", is yes, no, correct, incorrect, true or false in any case,
    then nothing follows, or a punctuation mark and an explanation in which no whole word says the opposite. Or the reply is
    one JSON object, possibly fenced, with ``"correct": true`` or ``"verdict": "yes"``.
    """
    pairs = json_pairs(text)
    return _parse_words(text) if pairs is None else _verdict_of(pairs)


def json_pairs(text: str) -> list[tuple[str, Any]] | None:
    """Returns names and values, with repeats, if the whole reply is one JSON object, possibly fenced; else None."""
    stripped = text.strip()
    fenced = _FENCED.fullmatch(stripped)
    if not fenced and not stripped.startswith("{"):
        return None
    try:
        return json.loads(fenced[1] if fenced else stripped, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None


def _parse_words(text: str) -> bool | None:
    match = _VERDICT.match(text)
    if match is None:
        return None
    verdict = match["yes"] is not None
    against = _AGAINST_YES if verdict else _AGAINST_NO
    return None if against.search(text, match.end(match.lastgroup or 0)) else verdict


def _verdict_of(pairs: list[tuple[str, Any]]) -> bool | None:
    match [(name, value) for name, value in pairs if name in ("correct", "verdict")]:
        case [("correct", bool(verdict))]:
            return verdict
        case [("verdict", str(words))]:
            return _parse_words(words)
        case _:
            return None
