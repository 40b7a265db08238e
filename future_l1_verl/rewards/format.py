"""R_fmt: checks on token ids that a response has the shape that its config asks for (paper section 1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.rewards.shape import SPAN, STRAY, has_shape


def well_formed(
    response_ids: Tensor,
    tokens: LatentTokens,
    max_latents: int,
    decode: Callable[[list[int]], str],
    max_spans: int = 8,
    shape: str = "interleaved",
) -> bool:
    """Returns whether a response has the shape, and at most ``max_spans`` spans, each closed, not empty and within the budget.

    ``response_ids`` is int64 ``[L]`` without the end-of-turn token; ``decode`` turns ids into text and keeps ``<reason>`` and
    ``<answer>``. Raises ValueError for a shape that rewards/shape.py does not know.
    """
    spans = response_layout(response_ids, tokens, max_latents).spans.tolist()
    closed = all(after < len(response_ids) and response_ids[after] == tokens.end for _, after in spans)
    text, position = "", 0
    for first, after in spans:
        text += _text(response_ids[position : first - 1], tokens, decode) + SPAN
        position = after + 1
    text += _text(response_ids[position:], tokens, decode)
    return has_shape(text, shape) and closed and len(spans) <= max_spans


def _text(ids: Tensor, tokens: LatentTokens, decode: Callable[[list[int]], str]) -> str:
    stray = torch.isin(ids, torch.tensor([tokens.start, tokens.latent, tokens.end]))
    return STRAY if bool(stray.any()) else decode(ids.tolist()).replace(SPAN, "")
