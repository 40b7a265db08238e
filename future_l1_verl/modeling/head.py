"""Computes the output head's log-probs in chunks of tokens, so that the logits of all tokens are never in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.modeling.packing import queued

CHUNK = 2**26
"""Logits per chunk: 256 MB in fp32; two chunks are in memory at once (three if the entropy is trained)."""


@dataclass(frozen=True)
class Head:
    """Computes the decisions of the output head ``weight [V, H]`` in the same way as the decoder.

    Tokens that the decoder never samples have probability 0: ``<|latent|>`` outside a span, and the tokens ``banned``.
    """

    weight: Tensor
    tokens: LatentTokens
    banned: tuple[int, ...]
    chunk: int = CHUNK

    def __call__(
        self, states: Tensor, before: Tensor, said: Tensor, slots: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns ``(log_probs, entropies)`` of N decisions, fp32 ``[N]``; the second is None unless ``entropy``.

        ``states [N, H]`` predict the tokens ``said``, which follow the tokens ``before`` (both int64 ``[N]``). An entry is log
        p(token), and log(1 - p(end)) at ``slots``, int64 ``[K]`` on the host: the indices at which ``said`` is ``<|latent|>``,
        ascending. Logits are divided by ``temperature`` in fp32, whatever the dtype of states and weight. The backward pass
        computes those of each chunk again.
        """
        return _Decisions.apply(states, self.weight, before, said, slots, self, temperature, entropy)

    def chunks(self, slots: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yields equal parts of tensors with N rows, each preceded by the slots in it; one empty part if N is 0."""
        size = max(self.chunk // len(self.weight), 1)
        for first, part in enumerate(zip(*(each.split(size) for each in rows), strict=True)):
            here = slots[(slots >= first * size) & (slots < (first + 1) * size)] - first * size
            yield queued(here, part[0].device), *part

    def log_softmax(self, states: Tensor, weight: Tensor, before: Tensor, temperature: float) -> Tensor:
        """Returns log-probs, fp32 ``[n, V]``; a large negative number for tokens that cannot be sampled."""
        logits = torch.nn.functional.linear(states, weight)
        # A large finite number, not -inf: the entropy would be 0 * inf.
        never = torch.finfo(logits.dtype).min / 1024
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)
        logits[:, self.tokens.latent].masked_fill_((before != self.tokens.start) & (before != self.tokens.latent), never)
        for token in self.banned:
            logits[:, token] = never
        return logits.log_softmax(-1)

    def without_end(self, log_probs: Tensor, slots: Tensor) -> Tensor:
        """Returns log-probs ``[k, V]`` at ``slots`` with -inf for the end token: the probabilities sum to 1 - p(end), which is
        exact even for p(end) close to 1."""
        others = log_probs.index_select(0, slots)
        others[:, self.tokens.end] = float("-inf")
        return others


class OutputHead(nn.Linear):
    """The output head of a model, called like `Head`. FSDP2 shards the head of an untied model separately, and gathers its
    weight only during this call."""

    tokens: LatentTokens
    banned: tuple[int, ...]

    def forward(self, *decisions: Any) -> tuple[Tensor, Tensor | None]:
        return Head(self.weight, self.tokens, self.banned)(*decisions)


class _Decisions(torch.autograd.Function):
    """Computes the result of `Head`, and keeps nothing of the size of the vocabulary between forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        before: Tensor,
        said: Tensor,
        slots: Tensor,
        head: Head,
        temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        # The dtype that autocast would use; autocast does not cover the backward pass, which uses it too.
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        ctx.head, ctx.slots, ctx.temperature, ctx.dtype = head, slots, temperature, dtype
        ctx.save_for_backward(states, weight, before, said)
        ctx.set_materialize_grads(False)
        used = weight.to(dtype)

        def part(slots: Tensor, states: Tensor, before: Tensor, said: Tensor) -> tuple[Tensor, Tensor | None]:
            log_probs = head.log_softmax(states, used, before, temperature)
            values = log_probs.gather(-1, said[:, None])[:, 0]
            values = values.index_copy(0, slots, head.without_end(log_probs, slots).logsumexp(-1))
            return values, -(log_probs.exp().mul_(log_probs).sum(-1)) if entropy else None

        with torch.autocast(device, enabled=False):
            parts = [part(*chunk) for chunk in head.chunks(slots, states.to(dtype), before, said)]
        values, entropies = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(entropies) if entropy else None

    @staticmethod
    def backward(ctx: Any, by_log_prob: Tensor | None, by_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        """Computes gradients by the logits (divided by the temperature). With p the distribution and q the one without the end:
        d log p(token) = one-hot - p, d log(1 - p(end)) = q - p, and d entropy = -p (log p + entropy)."""
        states, weight, before, said = ctx.saved_tensors
        head, used = ctx.head, weight.to(ctx.dtype)
        by_weight = torch.zeros_like(used) if ctx.needs_input_grad[1] else None
        given = [None if each is None else each / ctx.temperature for each in (by_log_prob, by_entropy)]
        by_value = torch.zeros_like(given[1]) if given[0] is None else given[0]
        by_spread = by_value if given[1] is None else given[1]

        def part(slots: Tensor, states: Tensor, before: Tensor, said: Tensor, by_value: Tensor, by_spread: Tensor) -> Tensor:
            """Returns the gradient ``[n, H]`` of a chunk, and adds its part to ``by_weight``."""
            log_probs = head.log_softmax(states, used, before, ctx.temperature)
            others = head.without_end(log_probs, slots).softmax(-1).mul_(by_value.index_select(0, slots)[:, None])
            if by_entropy is None:
                gradient = log_probs.exp_().mul_(-by_value[:, None])
            else:
                p = log_probs.exp()
                spread = p.mul(log_probs).sum(-1, keepdim=True)
                gradient = log_probs.sub_(spread).mul_(by_spread[:, None]).add_(by_value[:, None]).mul_(p).neg_()
            one_hot = by_value.index_fill(0, slots, 0.0)
            gradient.scatter_add_(-1, said[:, None], one_hot[:, None]).index_add_(0, slots, others)
            gradient = gradient.to(ctx.dtype)
            if by_weight is not None:
                by_weight.addmm_(gradient.T, states)
            return gradient @ used

        rows = (states.to(ctx.dtype), before, said, by_value, by_spread)
        by_states = torch.cat([part(*chunk) for chunk in head.chunks(ctx.slots, *rows)]).to(states.dtype)
        return by_states, None if by_weight is None else by_weight.to(weight.dtype), *[None] * 6
