"""vLLM's V2 sampler with spans: masks, decides, and scores by role. On the device, no host synchronisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.logprob import compute_token_logprobs
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.sampling import Decided, decide

if TYPE_CHECKING:
    from future_l1_verl.decoding.vllm.v2.state import LatentModelState


class LatentSampler(Sampler):
    """vLLM's sampler (vllm/v1/worker/gpu/sample/sampler.py) with spans. Read ``decided`` after a call.

    Log-probs, in the engine's ``logprobs_mode``: text keeps log p(token), with ``<|latent|>`` impossible; a stop is log p(end)
    of the unmasked distribution in the span; a free slot log(1 - p(end)) of the same distribution; a forced token 0. Without
    ``spans`` the start token is impossible.
    """

    spans: LatentModelState
    decided: Decided
    _whole: Tensor | None = None  # the sampling distribution before truncation

    @classmethod
    def around(cls, stock: Sampler, spans: LatentModelState) -> LatentSampler:
        """Returns a sampler with the state of ``stock``."""
        self = cls.__new__(cls)
        vars(self).update(vars(stock), spans=spans)
        return self

    def __call__(self, logits: Tensor, input_batch: InputBatch) -> SamplerOutput:
        """Upstream samples a token per row; here ``<|latent|>`` cannot be sampled outside spans, nor text inside."""
        tokens, rows = self.spans.tokens, self.spans.rows(input_batch)
        if not self.spans.settings.defaults.spans:
            logits.select(1, tokens.start).fill_(float("-inf"))
        logits.select(1, tokens.latent).masked_fill_(rows.outside, float("-inf"))
        output = super().__call__(logits, input_batch)
        scores, self._whole = logits if self._whole is None else self._whole, None
        sampled, gathered = output.sampled_token_ids.select(1, 0), output.logprobs_tensors
        if gathered is None:
            self.decided = decide(sampled, rows, tokens)
            return output
        going_on = self._going_on(scores, sampled, gathered)
        self.decided = decide(sampled, rows, tokens)
        output.logprobs_tensors = _by_role(gathered, going_on, sampled, self.decided)
        return output

    def _going_on(self, scores: Tensor, sampled: Tensor, gathered: LogprobsTensors) -> Tensor:
        """Returns log(1 - p(end)) ``[n]`` of ``scores [n, V]``, which it overwrites: log p of the sampled token minus its log p
        among all tokens except the end. Valid where the end was not sampled; exact even for p(end) close to 1."""
        scores.select(1, self.spans.tokens.end).fill_(float("-inf"))
        return (gathered.logprobs.select(1, 0) - compute_token_logprobs(scores, sampled[:, None]).select(1, 0)).clamp(max=0)

    def apply_sampling_params(
        self,
        logits: Tensor,
        expanded_idx_mapping: Tensor,
        idx_mapping: Tensor,
        idx_mapping_np: np.ndarray,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Upstream turns logits into the sampling distribution, later truncated in place (top-k, top-p); here it is kept."""
        processed = super().apply_sampling_params(logits, expanded_idx_mapping, idx_mapping, idx_mapping_np, *args, **kwargs)
        if self.logprobs_mode == "processed_logprobs":
            truncated = self.sampling_states.get_top_k_top_p(expanded_idx_mapping, idx_mapping_np) != (None, None)
            self._whole = processed.clone() if truncated else processed
        return processed

    def sample(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Upstream returns the truncated distribution for scoring; here it is the whole one, which the actor scores: with
        top-p 0.99 the actor would otherwise give every sampled token up to 0.01 nats less than the rollout."""
        sampled, truncated = super().sample(*args, **kwargs)
        return sampled, truncated if self._whole is None else self._whole


def _by_role(gathered: LogprobsTensors, going_on: Tensor, sampled: Tensor, decided: Decided) -> LogprobsTensors:
    """Makes column 0 the token that the row gets, with the log-prob of its role; if the same token is among the best, it gets
    that log-prob as well, since readers look it up by id."""
    ids = gathered.logprob_token_ids
    ids.select(1, 0).copy_(sampled)
    value = torch.where(decided.slot, going_on, gathered.logprobs.select(1, 0)).masked_fill_(decided.forced, 0.0)
    return gathered._replace(logprobs=torch.where(ids == ids[:, :1], value[:, None], gathered.logprobs))
