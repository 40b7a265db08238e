"""Finds the latents in a response. All indices of spans are computed here.

Every index of a response has one role (docs/concepts/spans.md). Roles are a function of the token ids
alone, because ``<|latent|>`` cannot be sampled outside a span.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from future_l1_verl.latents.tokens import LatentTokens


class Role(IntEnum):
    """The role of the token at a response index."""

    TEXT = 0  # sampled outside a span; the start token included
    STOP = 1  # an end token that the model chose inside a span
    LATENT = 2  # a slot that follows a free decision to go on
    LATENT_FORCED = 3  # a slot that the decoder opened without asking: the first of a span
    STOP_FORCED = 4  # the end token at the budget


ROLE_LETTERS = "tslfe"
"""A letter per role, in their order, for files."""


@dataclass(frozen=True)
class Layout:
    """The roles of the indices of one response or of a padded batch of responses.

    ``roles`` is int8 ``[..., L]``; ``count`` is int64 ``[..., L]``: the number of latents of the span before an index
    (0 outside spans).
    """

    roles: Tensor
    count: Tensor

    @property
    def slots(self) -> Tensor:
        """bool ``[..., L]``: the index carries a latent."""
        return (self.roles == Role.LATENT) | (self.roles == Role.LATENT_FORCED)

    @property
    def forced(self) -> Tensor:
        """bool ``[..., L]``: the policy did not choose this token."""
        return (self.roles == Role.LATENT_FORCED) | (self.roles == Role.STOP_FORCED)

    @property
    def spans(self) -> Tensor:
        """int64 ``[S, 2]`` of one response: the first slot of each span and the index after its last slot, in order."""
        if self.roles.dim() != 1:
            raise ValueError(f"spans are listed for one response at a time, not for shape {tuple(self.roles.shape)}")
        opens = self.slots & (self.count == 0)
        first = opens.nonzero()[:, 0]
        length = torch.bincount(opens.cumsum(0)[self.slots] - 1, minlength=len(first))
        return torch.stack([first, first + length], dim=1)


def response_layout(response_ids: Tensor, tokens: LatentTokens, max_latents: int, min_latents: int = 1) -> Layout:
    """Returns the roles of the indices of a response.

    ``response_ids``: integer ``[..., L]``, without the prompt; rows of a batch may be padded on the right with any id
    that is not a control token. ``max_latents`` is the budget of a span, ``min_latents`` the number of slots opened without a
    decision (1 in the paper; equal to ``max_latents`` for a fixed budget). With a budget of 0 spans are closed as they open.

    Defined for every sequence of ids: a ``<|latent|>`` outside a span or past the budget, and an end token outside a span,
    are plain text (the decoder never emits them).

    Raises ValueError unless 1 <= min_latents <= max_latents or both are 0.
    """
    if not 0 <= min_latents <= max_latents or (min_latents == 0 < max_latents):
        raise ValueError(f"need 1 <= min_latents <= max_latents, or both 0, not {min_latents} and {max_latents}")
    index = torch.arange(response_ids.shape[-1], device=response_ids.device).expand(response_ids.shape)
    is_latent = response_ids == tokens.latent
    # The last index at or before each one that does not hold <|latent|>; -1 if there is none.
    anchor = torch.where(is_latent, -1, index).cummax(dim=-1).values if index.numel() else index
    before = torch.cat([torch.full_like(anchor[..., :1], -1), anchor[..., :-1]], dim=-1)
    run = index - 1 - before
    opened = response_ids.gather(-1, before.clamp(min=0)) == tokens.start
    in_span = (before >= 0) & opened & (run <= max_latents)

    slot = in_span & is_latent & (run < max_latents)
    stop = in_span & (response_ids == tokens.end)
    roles = torch.full_like(response_ids, Role.TEXT, dtype=torch.int8)
    roles[slot] = Role.LATENT
    roles[slot & (run < min_latents)] = Role.LATENT_FORCED
    roles[stop] = Role.STOP
    roles[stop & (run == max_latents)] = Role.STOP_FORCED
    return Layout(roles, torch.where(slot | stop, run, 0))


def role_letters(roles: Tensor) -> str:
    """Returns the roles of one response, int8 ``[L]``, as a string of `ROLE_LETTERS`."""
    return "".join(ROLE_LETTERS[role] for role in roles.tolist())


def feeding_positions(slots: Tensor) -> Tensor:
    """Returns the positions whose hidden state becomes the latent of each slot: bool ``[..., L]`` to bool ``[..., L]``.

    Works on the mask of a sequence or of a response: a slot is never the first index, since a start token precedes it.
    """
    return torch.cat([slots[..., 1:], torch.zeros_like(slots[..., :1])], dim=-1)
