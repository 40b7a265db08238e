"""Asks the rollout servers: all answers to a prompt on one replica; answers cut by a weight update are continued."""

from typing import Any

import ray
import torch
from torch import Tensor
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from future_l1_verl.decoding.vllm.wire import from_array
from future_l1_verl.rl import shared_prompt


class _Attempts(LLMServerClient):
    """Upstream's client of one attempt, which also keeps the results of the earlier attempts at an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latents: dict[str, list[Tensor]] = {}
        self.segments: dict[str, list[tuple[int, int]]] = {}

    async def generate(self, request_id: str, *, sampling_params: dict[str, Any], **kwargs: Any) -> TokenOutput:
        latents, segments = self.latents[request_id], self.segments[request_id]
        if segments:
            sampling_params = sampling_params | {"prompt_latents": torch.cat(latents)}
        output = await super().generate(request_id, sampling_params=sampling_params, **kwargs)
        if output.token_ids:
            latents.append(from_array(output.extra_fields["latents"]))
            segments.append((output.extra_fields["global_steps"], len(output.token_ids)))
        return output


class LatentServerClient(FullyAsyncLLMServerClient, _Attempts):
    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, ray.actor.ActorHandle]:
        """Upstream (router.py) places each answer where the fewest are running. Here all answers to a prompt go to the same
        replica, which reads the prompt and its frames once and then finds them in its caches."""
        return await super()._acquire_server(shared_prompt.uid(), **extra)

    async def generate(self, request_id: str, **kwargs: Any) -> TokenOutput:
        """Upstream (llm_server.py) asks again with the tokens of a cut answer after its prompt, and merges only the fields
        that it knows. Here latents are sent along and merged too.

        ``extra_fields``: ``latents`` ``[slots, H]``; ``segments``, pairs of the version of the weights and the number of tokens
        that it generated, in order.
        """
        self.latents[request_id], self.segments[request_id] = [], []
        try:
            output = await super().generate(request_id, **kwargs)
            output.extra_fields |= {"latents": torch.cat(self.latents[request_id]), "segments": self.segments[request_id]}
            return output
        finally:
            del self.latents[request_id], self.segments[request_id]
