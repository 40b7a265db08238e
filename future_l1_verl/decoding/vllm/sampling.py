"""Decides, from what was sampled for a row, which token it gets, whether that is a slot, and whether it had a choice.

Pure tensor code on the device, no host synchronisation; knows nothing of requests or vLLM.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from future_l1_verl.decoding.vllm.store import OUTSIDE
from future_l1_verl.latents.tokens import LatentTokens


class SpanRows(NamedTuple):
    """Span state of the rows of a batch before they are sampled.

    ``state`` is int64 ``[n]``: latents so far in the row's span, or OUTSIDE, which bool ``outside`` ``[n]`` says too.
    ``min_latents`` and ``max_latents`` are int64 ``[n]``. Without ``free`` no row has a choice: no span is longer than 0.
    """

    state: Tensor
    outside: Tensor
    min_latents: Tensor
    max_latents: Tensor
    free: bool = True


class Decided(NamedTuple):
    """The decision for each row of a batch: bool ``slot`` [n], bool ``forced`` [n], int64 ``state`` [n]."""

    slot: Tensor
    forced: Tensor
    state: Tensor


def opened(sampled: Tensor, tokens: LatentTokens) -> Tensor:
    """Span state, int64 ``[n]``, after ``sampled``, integer ``[n]``, of rows that were all outside."""
    return (sampled == tokens.start).to(torch.int64).add_(OUTSIDE)


def decide(sampled: Tensor, rows: SpanRows, tokens: LatentTokens) -> Decided:
    """Replaces in place the sampled ids inside spans. ``sampled`` is integer ``[n]``.

    Inside a span an end token is a decision to stop and everything else one to go on, unless the row has no choice: below
    ``min_latents`` it goes on, at ``max_latents`` it stops.
    """
    # Each of the three implies the one before: in a span, enough, full.
    enough, full = rows.state >= rows.min_latents, rows.state >= rows.max_latents
    stop = torch.where(sampled == tokens.end, enough, full)
    slot = rows.outside == stop  # neither of the two; both cannot be
    sampled.masked_fill_(stop, tokens.end).masked_fill_(slot, tokens.latent)
    left = (sampled != tokens.start) ^ slot  # a span opens at 0, one more than OUTSIDE
    return Decided(slot, (rows.outside == enough) ^ full, (rows.state + 1).masked_fill_(left, OUTSIDE))
