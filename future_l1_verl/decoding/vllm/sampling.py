"""Sampling with spans: which token a row gets, whether it is a slot, and the log-prob that is reported for it.

Pure tensor code on the device, no host synchronisation; knows nothing of requests.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from vllm.config.model import LogprobsMode
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.store import OUTSIDE
from future_l1_verl.latents.likelihood import log_not
from future_l1_verl.latents.tokens import LatentTokens


class SpanRows(NamedTuple):
    """Span state of the rows of a batch before they are sampled.

    ``state`` is int32 ``[n]``: latents so far in the row's span, or OUTSIDE. ``min_latents`` and ``max_latents`` are
    int32 ``[n]``.
    """

    state: Tensor
    min_latents: Tensor
    max_latents: Tensor


class Decided(NamedTuple):
    """What the rows of a batch got: ``token_ids`` [n], bool ``slot`` [n], bool ``forced`` [n], int32 ``state`` [n]."""

    token_ids: Tensor
    slot: Tensor
    forced: Tensor
    state: Tensor


def decide(sampled: Tensor, rows: SpanRows | None, tokens: LatentTokens) -> Decided:
    """Replaces sampled ids inside spans; ``rows`` is None if no row is in a span. ``sampled`` is integer ``[n]``.

    Inside a span an end token is a decision to stop and everything else one to go on, unless the row has no choice: below
    ``min_latents`` it goes on, at ``max_latents`` it stops.
    """
    if rows is None:
        nothing = torch.zeros_like(sampled, dtype=torch.bool)
        return Decided(sampled, nothing, nothing, _opened(sampled, tokens))
    # Each of the three implies the one before, so that xor is "and not".
    in_span, enough, full = rows.state >= 0, rows.state >= rows.min_latents, rows.state >= rows.max_latents
    stop = full | (enough & (sampled == tokens.end))
    slot = in_span ^ stop
    token_ids = sampled.masked_fill(stop, tokens.end).masked_fill_(slot, tokens.latent)
    state = torch.where(slot, rows.state + 1, _opened(token_ids, tokens))
    return Decided(token_ids, slot, in_span ^ enough ^ full, state)


def _opened(token_ids: Tensor, tokens: LatentTokens) -> Tensor:
    """int32 ``[n]``: 0 where a span opens, OUTSIDE elsewhere."""
    return (token_ids == tokens.start).to(torch.int32).add_(OUTSIDE)


class LatentSampler(Sampler):
    """vLLM's sampler (vllm/v1/sample/sampler.py) with spans.

    ``rows`` is set before a call; ``decided`` is to be read after it. Log-probs, in the engine's ``logprobs_mode``:
    text keeps log p(token), with ``<|latent|>`` impossible; a stop is log p(end) of the distribution in the span, which
    is not masked; a free slot log(1 - p(end)) of it; anything forced 0. Without ``spans`` the start token is impossible.
    """

    def __init__(self, stock: Sampler, tokens: LatentTokens, spans: bool = True) -> None:
        super().__init__(stock.logprobs_mode, stock.use_fp64_gumbel)
        self.topk_topp_sampler = _ScoredBeforeTruncation(self.topk_topp_sampler)
        self.tokens = tokens
        self.spans = spans
        self.active = False  # vLLM's warm-up calls the sampler without a batch
        self.rows: SpanRows | None = None
        self.decided: Decided | None = None

    def forward(
        self,
        logits: Tensor,
        sampling_metadata: SamplingMetadata,
        predict_bonus_token: bool = False,
        logprobs_mode_override: LogprobsMode | None = None,
    ) -> SamplerOutput:
        """Upstream samples a token per row. It would hand out ``<|latent|>`` outside spans, and text inside."""
        if not self.active:
            return super().forward(logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)
        if not self.spans:
            logits[:, self.tokens.start] = float("-inf")
        if self.rows is None:
            logits[:, self.tokens.latent] = float("-inf")
        else:
            logits[:, self.tokens.latent].masked_fill_(self.rows.state < 0, float("-inf"))
        output = super().forward(logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)
        # gather_logprobs has decided already, if log-probs were asked for.
        if self.decided is None:
            self.decided = decide(output.sampled_token_ids[:, 0], self.rows, self.tokens)
        output.sampled_token_ids[:, 0] = self.decided.token_ids
        return output

    def gather_logprobs(self, logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> LogprobsTensors:
        """Upstream picks the sampled token's and the best log-probs out of ``[n, V]``; the only place that sees it whole.

        Column 0 is the sampled token. For a row in a span it becomes the token that the row gets, with the log-prob of
        its role; the same token among the best gets that log-prob as well, since readers look it up by id.
        """
        gathered = super().gather_logprobs(logprobs, num_logprobs, token_ids)
        if not self.active:
            return gathered  # prompt log-probs
        self.decided = decide(token_ids, self.rows, self.tokens)
        if self.rows is None:
            return gathered
        # What was sampled and stays (text, a free stop) has its log-prob there already.
        value = torch.where(self.decided.slot, log_not(logprobs, self.tokens.end), gathered.logprobs[:, 0])
        value.masked_fill_(self.decided.forced, 0.0)
        ids = gathered.logprob_token_ids
        ids[:, 0] = self.decided.token_ids
        values = torch.where(ids == ids[:, :1], value[:, None], gathered.logprobs)
        return gathered._replace(logprobs=values)


class _ScoredBeforeTruncation(torch.nn.Module):
    """vLLM's top-k and top-p sampling (vllm/v1/sample/ops/topk_topp_sampler.py), with log-probs of the whole distribution.

    Upstream returns those of the truncated one. The actor scores the whole one: with top-p 0.99 every sampled token would
    seem up to 0.01 nats less likely to it than to the rollout.
    """

    def __init__(self, stock: torch.nn.Module) -> None:
        super().__init__()
        self.stock, self.scored = stock, stock.logprobs_mode == "processed_logprobs"
        if self.scored:
            stock.logprobs_mode = "raw_logprobs"  # it would score the truncated one as well

    def forward(
        self, logits: Tensor, generators: dict[int, torch.Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.scored:
            return self.stock(logits, generators, k, p)
        scores = logits.log_softmax(dim=-1, dtype=torch.float32)  # truncation is in place
        sampled, _ = self.stock(logits, generators, k, p)
        return sampled, scores
