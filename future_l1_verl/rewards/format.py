"""R_fmt: whether a reply has the shape that its config asks for (paper section 1), judged on token ids."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentTokens

SPAN = "\ue000"  # stands for a closed span in a text; a private-use character
_STRAY = CONTROL_TOKENS[0]  # a control token outside a span has no place in any shape

# One letter per piece of a reply: r, R open and close a reason, a, A an answer, s is a span, t is text, x is a stray token.
_PIECES = {"<reason>": "r", "</reason>": "R", "<answer>": "a", "</answer>": "A", SPAN: "s"} | dict.fromkeys(CONTROL_TOKENS, "x")
_SPLIT = re.compile(f"({'|'.join(map(re.escape, _PIECES))})")
_SHAPES = {
    "interleaved": r"(rtR)?(srtR)+atA",
    "latent_first": r"(srtR)+atA",
    "reason_first": r"rtR(srtR)+atA",
    "text_only": r"rtRatA",
}
SHAPES = tuple(_SHAPES)


def well_formed(
    response_ids: Tensor,
    tokens: LatentTokens,
    max_latents: int,
    decode: Callable[[list[int]], str],
    max_spans: int = 8,
    shape: str = "interleaved",
) -> bool:
    """Whether a response has the shape, with each span closed, not empty and within the budget, and at most ``max_spans``.

    ``response_ids`` is int64 ``[L]`` without the end-of-turn token; ``decode`` turns ids into text and keeps ``<reason>`` and
    ``<answer>``. Raises ValueError for a shape that is none of ``SHAPES``.
    """
    spans = response_layout(response_ids, tokens, max_latents).spans.tolist()
    closed = all(after < len(response_ids) and response_ids[after] == tokens.end for _, after in spans)
    text, position = "", 0
    for first, after in spans:
        text += _text(response_ids[position : first - 1], tokens, decode) + SPAN
        position = after + 1
    text += _text(response_ids[position:], tokens, decode)
    return has_shape(text, shape) and closed and len(spans) <= max_spans


def has_shape(text: str, shape: str) -> bool:
    """Whether a text, in which ``SPAN`` stands for each latent span, has the shape; whitespace between its parts is free.

    ``interleaved``: one or more pairs of a span and a reason, led by a reason or not, then one answer. ``latent_first``: not
    led by a reason. ``reason_first``: led by one. ``text_only``: one reason, then one answer, no span. No reason or answer may
    be empty or hold another tag. Takes time linear in the text. Raises ValueError for a shape that is none of ``SHAPES``.
    """
    if shape not in _SHAPES:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
    pieces = (_PIECES.get(piece, "t") for piece in _SPLIT.split(text) if piece.strip())
    return re.fullmatch(_SHAPES[shape], "".join(pieces)) is not None


def _text(ids: Tensor, tokens: LatentTokens, decode: Callable[[list[int]], str]) -> str:
    stray = torch.isin(ids, torch.tensor([tokens.start, tokens.latent, tokens.end]))
    return _STRAY if bool(stray.any()) else decode(ids.tolist()).replace(SPAN, "")
