"""Splits a reply into words, markup and latent spans (docs/concepts/spans.md)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from future_l1_verl.evaluation.runs import Record, RunError
from future_l1_verl.latents.spans import ROLE_LETTERS, Role
from future_l1_verl.latents.tokens import LATENT, LATENT_END, LATENT_START

_FREE, _FORCED, _STOP, _STOP_FORCED = (
    ROLE_LETTERS[role] for role in (Role.LATENT, Role.LATENT_FORCED, Role.STOP, Role.STOP_FORCED)
)
# With a budget of 0 a span is closed without latents.
_SPAN = re.compile(f"([{_FREE}{_FORCED}]*)([{_STOP}{_STOP_FORCED}])|[{_FREE}{_FORCED}]+")
_MARKUP = re.compile("(</?(?:reason|answer)>)")


@dataclass(frozen=True)
class Words:
    """A piece of text; ``markup``: it is a single tag of a well-formed reply."""

    text: str
    markup: bool = False


@dataclass(frozen=True)
class Span:
    """The ``number``-th span of a reply, from 1. ``forced`` says for each latent whether the decoder opened it without a
    decision; ``slots`` are their indices among the reply's latents; ``end`` is "stop" (chosen), "budget" (forced) or "cut"."""

    number: int
    forced: tuple[bool, ...]
    slots: range
    end: str


def parts(record: Record) -> list[Words | Span]:
    """Returns the parts of a reply in order. Control tokens outside spans are words, as for the decoder.

    Raises RunError naming the row if ``text`` does not hold the spans that ``roles`` has.
    """
    found: list[Words | Span] = []
    at = 0
    for span in spans(record.roles):
        drawn = LATENT_START + LATENT * len(span.forced) + (LATENT_END if span.end != "cut" else "")
        start = record.text.find(drawn, at)
        if start < 0:
            raise RunError(f"row {record.row}: roles has span {span.number} of {len(span.forced)} latents, text does not")
        found += [*_words(record.text[at:start]), span]
        at = start + len(drawn)
    return [*found, *_words(record.text[at:])]


def spans(roles: str) -> list[Span]:
    """Returns the spans of a reply; ``roles`` has a letter per token."""
    found: list[Span] = []
    slot = 0
    for number, match in enumerate(_SPAN.finditer(roles), start=1):
        stop = match[2]
        latents = match[0].removesuffix(stop or "")
        end = "cut" if stop is None else "stop" if stop == _STOP else "budget"
        found.append(Span(number, tuple(letter == _FORCED for letter in latents), range(slot, slot + len(latents)), end))
        slot += len(latents)
    return found


def _words(text: str) -> Iterator[Words]:
    for part in _MARKUP.split(text):
        if part:
            yield Words(part, markup=_MARKUP.fullmatch(part) is not None)
