"""What the output head says of the scored tokens, a chunk of them at a time: logits of all tokens are never in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from future_l1_verl.latents.tokens import LatentTokens

CHUNK = 2**26
"""Logits that are alive at once, at most: 256 MB in fp32."""


@dataclass(frozen=True)
class Head:
    """The decisions of the output head ``linear`` (``[N, H] -> [N, V]``), as the decoder made them.

    What the decoder never samples has no probability: ``<|latent|>`` outside a span, and the tokens ``banned``.
    """

    linear: nn.Module
    tokens: LatentTokens
    banned: tuple[int, ...]
    chunk: int = CHUNK

    def __call__(
        self, states: Tensor, before: Tensor, tokens: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """``(log_probs, entropies)`` of N decisions, fp32 ``[N]``; the second is None unless ``entropy``.

        ``states [N, H]`` predict ``tokens``, which follow the tokens ``before`` (both int64 ``[N]``). An entry is log p(token),
        and log(1 - p(end)) where the token is ``<|latent|>``. Logits are divided by ``temperature`` in fp32, whatever their
        dtype. The backward pass makes those of a chunk again.
        """
        rows = max(self.chunk // self.linear.out_features, 1)
        parts = [
            checkpoint(self._decisions, *part, temperature, entropy, use_reentrant=False)
            for part in zip(*(each.split(rows) for each in (states, before, tokens)), strict=True)
        ]
        log_probs, entropies = (torch.cat(each) if each[0] is not None else None for each in zip(*parts, strict=True))
        return log_probs, entropies

    def _decisions(
        self, states: Tensor, before: Tensor, tokens: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        logits = self.linear(states)
        # A large finite number, not -inf: the entropy would be 0 * inf.
        never = torch.finfo(logits.dtype).min / 1024
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        logits[:, self.tokens.latent].masked_fill_((before != self.tokens.start) & (before != self.tokens.latent), never)
        logits[:, list(self.banned)] = never
        total = logits.logsumexp(-1)
        log_probs = logits.gather(-1, tokens[:, None])[:, 0] - total
        go_on = (tokens == self.tokens.latent).nonzero()[:, 0]
        # log(1 - p(end)) as a sum over the others, so exact also where p(end) is close to 1.
        others = logits[go_on].index_fill(-1, torch.tensor([self.tokens.end], device=logits.device), float("-inf"))
        log_probs = log_probs.index_copy(0, go_on, others.logsumexp(-1) - total[go_on])
        if not entropy:
            return log_probs, None
        return log_probs, total - (logits - total[:, None]).exp().mul(logits).sum(-1)
