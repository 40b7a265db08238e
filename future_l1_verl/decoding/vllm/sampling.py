"""Decides, from the sampled token of a row, which token it gets, whether that is a slot, and whether it was forced.

Pure tensor code on the device, without host synchronisation; does not depend on requests or vLLM.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from future_l1_verl.decoding.vllm.store import OUTSIDE
from future_l1_verl.latents.tokens import LatentTokens


class SpanRows(NamedTuple):
    """The span state of the rows of a batch before they are sampled.

    ``state`` is int64 ``[n]``: latents so far in the row's span, or OUTSIDE (also in bool ``outside`` ``[n]``).
    ``min_latents`` and ``max_latents`` are int64 ``[n]``. Without ``free`` no row has a choice: all spans are still empty.
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
    """Returns the span state, int64 ``[n]``, after ``sampled``, integer ``[n]``, of rows that were all outside spans."""
    return (sampled == tokens.start).to(torch.int64).add_(OUTSIDE)


def decide(sampled: Tensor, rows: SpanRows, tokens: LatentTokens) -> Decided:
    """Replaces the sampled ids inside spans, in place, and returns the decision. ``sampled`` is integer ``[n]``.

    Inside a span an end token means stop and any other token means continue, unless the row has no choice: below
    ``min_latents`` it continues, at ``max_latents`` it stops.
    """
    # Each condition implies the one before: in a span, enough, full.
    enough, full = rows.state >= rows.min_latents, rows.state >= rows.max_latents
    stop = torch.where(sampled == tokens.end, enough, full)
    slot = rows.outside == stop  # inside a span and not a stop; outside and stop exclude each other
    sampled.masked_fill_(stop, tokens.end).masked_fill_(slot, tokens.latent)
    left = (sampled != tokens.start) ^ slot  # a span opens at 0, one more than OUTSIDE
    return Decided(slot, (rows.outside == enough) ^ full, (rows.state + 1).masked_fill_(left, OUTSIDE))
