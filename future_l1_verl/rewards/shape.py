r"""The shapes that a reply can be asked to have (paper section 1), checked on its text."""

import re
from dataclasses import dataclass

from future_l1_verl.latents.tokens import CONTROL_TOKENS
from future_l1_verl.rewards.boxed import boxes

SPAN = "\ue000"  # stands for a closed span in a text; a private-use character
_BOX = "\ue001"
STRAY = CONTROL_TOKENS[0]
"""Stands for a control token outside a span, which no shape allows."""

# One letter per piece of a reply: r, R open and close a reason, a, A an answer, s is a span, b a box, t text, x a stray token.
_SHAPES = {
    "interleaved": r"(rtR)?(srtR)+atA",
    "latent_first": r"(srtR)+atA",
    "reason_first": r"rtR(srtR)+atA",
    "text_only": r"rtRatA",
    "boxed": r"rtRt?bt?",
}
SHAPES = ("interleaved", "latent_first", "reason_first", "text_only")
"""The shapes that LA-DAPO can ask for."""
TEXT_SHAPES = ("text_only", "boxed")
"""The shapes of a reply without latents."""


@dataclass(frozen=True)
class Tags:
    """The tags around a reason and around the answer. Raises ValueError if one is not a name, or both are equal."""

    reason: str = "reason"
    answer: str = "answer"

    def __post_init__(self) -> None:
        for tag in (self.reason, self.answer):
            if not re.fullmatch(r"[A-Za-z][\w-]*", tag):
                raise ValueError(f"a tag is named by letters, digits, '_' and '-', as in 'think', not {tag!r}")
        if self.reason == self.answer:
            raise ValueError(f"reason and answer need different tags, not {self.reason!r} for both")


TAGS = Tags()


def has_shape(text: str, shape: str, tags: Tags = TAGS) -> bool:
    r"""Returns whether a text, with ``SPAN`` in place of each latent span, has the shape, with any whitespace between parts.

    ``interleaved``: optionally a reason, then one or more pairs of a span and a reason, then one answer. ``latent_first``: the
    same without the first reason. ``reason_first``: the same with it. ``text_only``: one reason, then one answer, no span.
    ``boxed``: one reason, then text with one ``\boxed{...}``. No reason or answer may be empty or contain another tag. The
    time is linear in the length of the text. Raises ValueError for another shape.
    """
    if shape not in _SHAPES:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(_SHAPES)}")
    names = {f"<{tags.reason}>": "r", f"</{tags.reason}>": "R", f"<{tags.answer}>": "a", f"</{tags.answer}>": "A"}
    pieces = names | {SPAN: "s", _BOX: "b"} | dict.fromkeys(CONTROL_TOKENS, "x")
    text = _with_boxes_marked(text, f"</{tags.reason}>") if shape == "boxed" else text.replace(_BOX, "")
    split = re.split(f"({'|'.join(map(re.escape, pieces))})", text)
    return re.fullmatch(_SHAPES[shape], "".join(pieces.get(piece, "t") for piece in split if piece.strip())) is not None


def _with_boxes_marked(text: str, after: str) -> str:
    """Returns the text with ``_BOX`` for each non-empty box after the last ``after``: earlier boxes belong to the reasoning."""
    head, closing, rest = text.replace(_BOX, "").rpartition(after)
    made, position = [], 0
    for start, end, content in boxes(rest):
        made += [rest[position:start], _BOX if content else ""]
        position = end
    return head + closing + "".join(made) + rest[position:]
