"""The engines that answer: a vLLM engine of this process, or a server with the OpenAI chat API (`served`)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from future_l1_verl.data.prompts import Message, engine_prompt
from future_l1_verl.decoding.vllm import completion_latents, engine_arguments, request_options, require_live_async
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.platform.vllm_engine import engine_defaults, refusals


class Reply(NamedTuple):
    """``text`` with its control tokens; ``latents [slots, H]`` in order, as they were injected."""

    text: str
    token_ids: list[int]
    finish_reason: str
    latents: Tensor


class Unanswerable(ValueError):
    """The engine refuses this question but would answer others; the message says why."""


@dataclass(frozen=True)
class Decoding:
    """The sampling of a reply: greedy by default, as in paper section 5. Without ``spans`` there are none."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    min_latents: int = 1
    seed: int = 0
    spans: bool = True

    def sampling(self, row: int) -> dict[str, Any]:
        """Returns the parameters that vLLM and the chat API name alike. Each question has its own seed, so that its answer does
        not depend on the other questions."""
        seed = (self.seed * 1_000_003 + row) % 2**31
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": seed}

    def options(self, intervention: Intervention | None) -> dict[str, Any]:
        """Returns arguments of `request_options`."""
        return {"min_latents": self.min_latents, "intervention": intervention, "return_latents": True} if self.spans else {}


class Engine(Protocol):
    async def ask(self, chat: Sequence[Message], row: int, intervention: Intervention | None) -> Reply:
        """Returns the reply to a chat. Raises Unanswerable if only this question fails, another error if all would."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class LocalSettings:
    """``extra`` are further arguments of vLLM's AsyncEngineArgs. ``media``: the most pictures and videos per question, by
    vLLM's names."""

    checkpoint: Path
    decoding: Decoding
    media: dict[str, int]
    dtype: str = "auto"
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    tensor_parallel: int = 1
    data_parallel: int = 1
    intervening: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class LocalEngine:
    """vLLM with ``data_parallel`` engines."""

    def __init__(self, settings: LocalSettings, engine: Any) -> None:
        from transformers import AutoProcessor

        self.settings, self.engine = settings, engine
        self.processor = AutoProcessor.from_pretrained(settings.checkpoint)

    @classmethod
    async def start(cls, settings: LocalSettings, has_latents: bool) -> LocalEngine:
        """Starts vLLM. Raises ValueError or RuntimeError, also vLLM's own, if the checkpoint or a setting cannot work."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        latent = engine_arguments(
            str(settings.checkpoint),
            spans=settings.decoding.spans,
            async_scheduling=False if settings.intervening else None,
        )
        arguments = {
            "model": str(settings.checkpoint),
            "dtype": settings.dtype,
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": settings.tensor_parallel,
            "data_parallel_size": settings.data_parallel,
            "limit_mm_per_prompt": settings.media,
            "enable_log_requests": False,
            "disable_log_stats": True,
            **engine_defaults(),
            **({"gpu_memory_utilization": share} if (share := settings.gpu_memory_utilization) else {}),
            **(latent if has_latents else {}),
            **settings.extra,
        }
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        try:
            if has_latents:
                await require_live_async(engine)
            return cls(settings, engine)
        except BaseException:
            engine.shutdown()
            raise

    async def ask(self, chat: Sequence[Message], row: int, intervention: Intervention | None) -> Reply:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        decoding = self.settings.decoding
        params = SamplingParams(
            **decoding.sampling(row),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=request_options(**decoding.options(intervention)),
        )
        try:
            async for output in self.engine.generate(engine_prompt(self.processor, chat), params, request_id=uuid.uuid4().hex):
                (completion,) = output.outputs
        except refusals() as error:
            raise Unanswerable(str(error)) from error
        if completion.finish_reason not in ("stop", "length"):
            raise Unanswerable(f"the engine ended the answer with {completion.finish_reason!r}; see its log")
        latents = completion_latents(completion)
        return Reply(completion.text, list(completion.token_ids), completion.finish_reason, latents)

    async def close(self) -> None:
        self.engine.shutdown()
