"""verl's vLLM server with latent spans."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray
import torch
from torch import Tensor
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from future_l1_verl.decoding.vllm import completion_latents, engine_arguments, request_options, require_live_async
from future_l1_verl.decoding.vllm.wire import to_array


class LatentHttpServer(vLLMHttpServer):
    """Starts the engine with the latent worker and scheduler and returns its latents as ``extra_fields["latents"]``, an array
    ``[slots, H]`` in the form of decoding/vllm/wire.py."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latents: dict[str, Tensor] = {}

    def _preprocess_engine_kwargs(self, engine_kwargs: dict[str, Any]) -> None:
        super()._preprocess_engine_kwargs(engine_kwargs)
        options = engine_kwargs.pop("latent")
        self.sigma = options["sigma"]
        engine_kwargs.update(engine_arguments(self.model_config.local_path, **options))

    async def run_server(self, args: Any) -> None:
        await super().run_server(args)
        await require_live_async(self.engine)
        self.dtype = self.engine.model_config.dtype
        self.engine.generate = self._keeping_latents(self.engine.generate)

    def _keeping_latents(self, generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        """Upstream's `generate` (vllm_async_server.py) drops unknown fields of the engine's output; here latents are kept."""

        async def generate_and_keep(*args: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
            async for output in generate(*args, request_id=request_id, **kwargs):
                if output.finished and output.outputs:
                    self.latents[request_id] = completion_latents(output.outputs[0], self.hidden_size, self.dtype)
                yield output

        return generate_and_keep

    async def check_health(self) -> None:
        """Raises vLLM's EngineDeadError if the engine process or one of its workers is gone."""
        await self.engine.check_health()

    @property
    def hidden_size(self) -> int:
        return self.model_config.hf_config.get_text_config().hidden_size

    async def generate(self, prompt_ids: list[int], sampling_params: dict, request_id: str, **kwargs: Any) -> TokenOutput:
        """Generates as upstream does; a prompt may end in part of an answer, with ``sampling_params["prompt_latents"]``."""
        sampling_params["extra_args"] = (sampling_params.get("extra_args") or {}) | request_options(
            seed=zlib.crc32(request_id.encode()) if self.sigma > 0 else None,
            prompt_latents=sampling_params.pop("prompt_latents", None),
        )
        sampling_params["detokenize"] = False  # the text is not used
        output = await super().generate(prompt_ids, sampling_params, request_id, **kwargs)
        # An answer without latents has rows of the same dtype as the others: TransferQueue packs them together.
        nothing = torch.zeros(0, self.hidden_size, dtype=self.dtype)
        # Ray sends an array six times as fast as a tensor.
        output.extra_fields["latents"] = to_array(self.latents.pop(request_id, nothing))
        return output


class LatentReplica(vLLMReplica):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(LatentHttpServer)
