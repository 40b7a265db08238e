"""R_fmt: whether a reply has one of the shapes of paper section 1, judged on token ids."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentTokens

_SPAN = "\ue000"  # stands for a closed span; a private-use character, removed from the text before
_BODY = rf"[^<{_SPAN}]*[^<{_SPAN}\s][^<{_SPAN}]*"
_SHAPE = re.compile(
    rf"\s*(?:<reason>{_BODY}</reason>\s*)?(?:{_SPAN}\s*<reason>{_BODY}</reason>\s*)+<answer>{_BODY}</answer>\s*"
)


def well_formed(
    response_ids: Tensor,
    tokens: LatentTokens,
    max_latents: int,
    decode: Callable[[list[int]], str],
    max_spans: int = 8,
) -> bool:
    """One or more pairs of a latent span and a reason, led by a reason or not, then one answer; nothing empty.

    ``response_ids`` is int64 ``[L]`` without the end-of-turn token; ``decode`` turns ids into text and keeps ``<reason>`` and
    ``<answer>``. A span counts only if it is closed and within the budget; more than ``max_spans`` of them do not pass.
    """
    spans = response_layout(response_ids, tokens, max_latents).spans.tolist()
    if not 1 <= len(spans) <= max_spans:
        return False
    text, position = [], 0
    for first, after in spans:
        if after == len(response_ids) or response_ids[after] != tokens.end:
            return False
        text += [_text(response_ids[position : first - 1], tokens, decode), _SPAN]
        position = after + 1
    text.append(_text(response_ids[position:], tokens, decode))
    return _SHAPE.fullmatch("".join(text)) is not None


def _text(ids: Tensor, tokens: LatentTokens, decode: Callable[[list[int]], str]) -> str:
    """Control tokens outside a span show as "<", which no body may hold."""
    control = torch.isin(ids, torch.tensor([tokens.start, tokens.latent, tokens.end]))
    return "<" if bool(control.any()) else decode(ids.tolist()).replace(_SPAN, "")
