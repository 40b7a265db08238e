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
    """vLLM's sampler (vllm/v1/worker/gpu/sample/sampler.py) with spans. ``decided`` is to be read after a call.

    Log-probs, in the engine's ``logprobs_mode``: text keeps log p(token), with ``<|latent|>`` impossible; a stop is log p(end)
    of the distribution in the span, which is not masked; a free slot log(1 - p(end)) of it; anything forced 0. Without
    ``spans`` the start token is impossible.
    """

    spans: LatentModelState
    decided: Decided
    _whole: Tensor | None = None  # what is sampled from, before truncation

    @classmethod
    def around(cls, stock: Sampler, spans: LatentModelState) -> LatentSampler:
        """A sampler with the state of ``stock``."""
        self = cls.__new__(cls)
        vars(self).update(vars(stock), spans=spans)
        return self

    def __call__(self, logits: Tensor, input_batch: InputBatch) -> SamplerOutput:
        """Upstream samples a token per row. It would hand out ``<|latent|>`` outside spans, and text inside."""
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
        """log(1 - p(end)) ``[n]`` of ``scores [n, V]``, which are overwritten: log p(token) of what was sampled, less what it
        is among all tokens but the end. Of use where the end was not sampled; exact also where p(end) is close to 1."""
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
        """Upstream makes of logits what is sampled from, and truncates that for top-k and top-p afterwards, in place."""
        processed = super().apply_sampling_params(logits, expanded_idx_mapping, idx_mapping, idx_mapping_np, *args, **kwargs)
        if self.logprobs_mode == "processed_logprobs":
            truncated = self.sampling_states.get_top_k_top_p(expanded_idx_mapping, idx_mapping_np) != (None, None)
            self._whole = processed.clone() if truncated else processed
        return processed

    def sample(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Upstream returns, to be scored, the truncated distribution. The actor scores the whole one: with top-p 0.99 every
        sampled token would seem up to 0.01 nats less likely to it than to the rollout."""
        sampled, truncated = super().sample(*args, **kwargs)
        return sampled, truncated if self._whole is None else self._whole


def _by_role(gathered: LogprobsTensors, going_on: Tensor, sampled: Tensor, decided: Decided) -> LogprobsTensors:
    """Column 0 is the token that the row gets, with the log-prob of its role; the same token among the best gets that log-prob
    as well, since readers look it up by id."""
    ids = gathered.logprob_token_ids
    ids.select(1, 0).copy_(sampled)
    value = torch.where(decided.slot, going_on, gathered.logprobs.select(1, 0)).masked_fill_(decided.forced, 0.0)
    return gathered._replace(logprobs=torch.where(ids == ids[:, :1], value[:, None], gathered.logprobs))
