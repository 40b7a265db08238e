"""vLLM's V1 sampler with spans: masks, decides, and scores by role. On the device, no host synchronisation."""

from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.config.model import LogprobsMode
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm.v1.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.sampling import Decided, SpanRows, decide
from future_l1_verl.latents.tokens import LatentTokens


@dataclass(slots=True)
class Turn:
    """One call of the sampler. Set ``rows`` before it and read ``decided`` after it; both are None if no row is in a span."""

    rows: SpanRows | None = None
    decided: Decided | None = None


class LatentSampler(Sampler):
    """vLLM's sampler (vllm/v1/sample/sampler.py) with spans, controlled by ``turn``. While no row is in a span it does what
    vLLM does: the logits are then masked already (`OutsideMask`).

    Log-probs, in the engine's ``logprobs_mode``: text keeps log p(token), with ``<|latent|>`` impossible; a stop is log p(end)
    of the unmasked distribution in the span; a free slot log(1 - p(end)) of the same distribution; a forced token 0. Without
    ``spans`` the start token is impossible.
    """

    def __init__(self, stock: Sampler, tokens: LatentTokens, spans: bool = True) -> None:
        super().__init__(stock.logprobs_mode, stock.use_fp64_gumbel)
        if stock.logprobs_mode == "processed_logprobs":
            _score_before_truncation(self.topk_topp_sampler)
        self.tokens = tokens
        self.spans = spans
        self.turn = Turn()  # a separate object, since setting an attribute of a module is slow

    def forward(
        self,
        logits: Tensor,
        sampling_metadata: SamplingMetadata,
        predict_bonus_token: bool = False,
        logprobs_mode_override: LogprobsMode | None = None,
    ) -> SamplerOutput:
        """Upstream samples a token per row; here ``<|latent|>`` cannot be sampled outside spans, nor text inside."""
        turn = self.turn
        if turn.rows is None:
            return super().forward(logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)
        if not self.spans:
            logits.select(1, self.tokens.start).fill_(float("-inf"))
        logits.select(1, self.tokens.latent).masked_fill_(turn.rows.outside, float("-inf"))
        output = super().forward(logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)
        # If log-probs were requested, gather_logprobs has decided already.
        if turn.decided is None:
            turn.decided = decide(output.sampled_token_ids.select(1, 0), turn.rows, self.tokens)
        return output

    def gather_logprobs(  # type: ignore[override]  # upstream's is static, and called on the object
        self, logprobs: Tensor, num_logprobs: int, token_ids: Tensor
    ) -> LogprobsTensors:
        """Upstream picks the log-probs of the sampled and the best tokens from ``[n, V]``, and is the last to see all of it.
        It returns ``token_ids`` afterwards, so changes made to them here are what the rows get.

        Column 0 becomes the token that the row gets, with the log-prob of its role; if the same token is among the best, it
        gets that log-prob as well, since readers look it up by id.
        """
        turn = self.turn
        if turn.rows is None:
            return super().gather_logprobs(logprobs, num_logprobs, token_ids)
        turn.decided = decide(token_ids, turn.rows, self.tokens)
        gathered = super().gather_logprobs(logprobs, num_logprobs, token_ids)
        # Tokens that stay as sampled (text, a free stop) have the right log-prob already.
        value = gathered.logprobs.select(1, 0)
        if turn.rows.free:
            torch.where(turn.decided.slot, _log_not(logprobs, self.tokens.end), value, out=value)
        value.masked_fill_(turn.decided.forced, 0.0)
        if num_logprobs == 0:
            return gathered
        ids = gathered.logprob_token_ids
        return gathered._replace(logprobs=torch.where(ids == ids[:, :1], value[:, None], gathered.logprobs))


def _log_not(log_probs: Tensor, token: int) -> Tensor:
    """Returns log(1 - p(token)) ``[n]`` of normalised ``[n, V]``, which it overwrites: a copy would be too large.

    Sums over the other tokens, so it is exact even for p close to 1; -inf if 1 - p is smaller than a float32 can hold.
    """
    log_probs.select(1, token).fill_(float("-inf"))
    return log_probs.exp_().sum(1).log_()


def _score_before_truncation(stock: TopKTopPSampler) -> None:
    """Makes vLLM's top-k and top-p sampling (vllm/v1/sample/ops/topk_topp_sampler.py) return log-probs of the whole
    distribution.

    Upstream returns those of the truncated distribution. The actor scores the whole one: with top-p 0.99 it would give every
    sampled token up to 0.01 nats less than the rollout.
    """
    stock.logprobs_mode = "raw_logprobs"  # else it would also score the truncated distribution
    sample = stock.forward

    def forward(
        logits: Tensor, generators: dict[int, torch.Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = logits.log_softmax(dim=-1, dtype=torch.float32)  # truncation is in place
        return sample(logits, generators, k, p)[0], scores

    stock.forward = forward
