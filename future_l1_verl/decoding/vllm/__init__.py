"""Latent spans in stock vLLM::

    llm = LLM(model=checkpoint, **engine_arguments(checkpoint))
    require_live(llm)
    params = SamplingParams(logprobs=0, extra_args=request_options(max_latents=4), ...)
    for output in llm.generate(prompts, params):
        latents = completion_latents(output.outputs[0])

An engine that is started without these arguments, such as ``vllm serve CHECKPOINT``, gets them from `decoding.plugin` and
``selection`` if its checkpoint has latent tokens; latents are then returned only to requests with ``return_latents``.

The worker and scheduler classes are named by string and imported by vLLM's processes; importing this module does not
import vLLM. What each part does: ``settings``; ``sampling`` (what a row gets), ``store`` (latents that are kept), ``outputs``
(latents coming out), ``worker`` and ``scheduler`` (overrides) serve both of vLLM's model runners; ``v1`` and ``v2`` are for one
of them each, chosen by what the engine uses; ``compatibility`` refuses what cannot work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from future_l1_verl import versions
from future_l1_verl.decoding.vllm.settings import ENGINE_OPTIONS, LATENT_KEY, REQUEST_OPTIONS, RETURN_KEY, SpanOptions
from future_l1_verl.decoding.vllm.wire import to_text
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.tokens import LatentSettings

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.async_llm import AsyncLLM

WORKER = f"{__name__}.worker.LatentWorker"
# The first picks one of the others by the engine's final async_scheduling.
SCHEDULERS = tuple(f"{__name__}.scheduler.{name}" for name in ("latent_scheduler", "LatentScheduler", "LatentAsyncScheduler"))


def engine_arguments(
    checkpoint: str,
    *,
    max_latents: int | None = None,
    min_latents: int = 1,
    sigma: float = 0.0,
    spans: bool = True,
    return_latents: bool = True,
    async_scheduling: bool | None = None,
) -> dict[str, Any]:
    """Returns the engine arguments that select latent spans, to be added to the others of ``LLM`` or ``AsyncEngineArgs``.

    ``max_latents`` is the checkpoint's budget unless given; without ``spans`` the engine answers only in text;
    ``return_latents`` is the default of requests; ``async_scheduling`` is vLLM's choice unless given. The values are plain
    strings, numbers and dicts, so that they can be passed on a command line.

    Raises UnsupportedVersion for an untested vLLM, FileNotFoundError or ValueError if the checkpoint has no latent tokens,
    and ValueError for impossible options.
    """
    versions.require("vllm")
    budget = LatentSettings.from_checkpoint(checkpoint).max_latents if max_latents is None else max_latents
    options = SpanOptions(budget, min_latents, sigma, spans=spans, return_latents=return_latents)
    arguments: dict[str, Any] = {
        "worker_cls": WORKER,
        "scheduler_cls": SCHEDULERS[0],
        "additional_config": {LATENT_KEY: {name: getattr(options, name) for name in ENGINE_OPTIONS}},
    }
    if async_scheduling is not None:
        arguments["async_scheduling"] = async_scheduling
    return arguments


def request_options(
    *,
    seed: int | None = None,
    sigma: float | None = None,
    max_latents: int | None = None,
    min_latents: int | None = None,
    return_latents: bool | None = None,
    intervention: Intervention | None = None,
    prompt_latents: Tensor | None = None,
) -> dict[str, Any]:
    """Returns ``SamplingParams.extra_args`` of a request that differs from the engine's options; None keeps an option.

    ``seed`` selects the noise of sigma > 0. With n > 1 give ``SamplingParams.seed`` instead: vLLM changes that one for each
    completion. The engine refuses impossible values, for that request only; with async scheduling it also refuses
    interventions.

    ``prompt_latents`` ``[k, H]`` continue a response that was cut: the prompt ends with its tokens so far, possibly inside a
    span, and these are the latents of its slots, in order (``[0, H]`` if there are none yet).
    """
    kind = vectors = None
    if intervention is not None:
        kind, seed = intervention.kind, intervention.seed
        vectors = None if intervention.latents is None else to_text(intervention.latents)
    prompt = None if prompt_latents is None else to_text(prompt_latents)
    given = dict(zip(REQUEST_OPTIONS, (max_latents, min_latents, sigma, seed, kind, vectors, prompt), strict=True))
    options = {LATENT_KEY: {name: value for name, value in given.items() if value is not None}}
    return options if return_latents is None else options | {RETURN_KEY: return_latents}


def completion_latents(output: CompletionOutput, hidden_size: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Calls ``outputs.completion_latents``, which see."""
    from future_l1_verl.decoding.vllm import outputs

    return outputs.completion_latents(output, hidden_size, dtype)


def require_live(engine: LLM) -> list[dict[str, Any]]:
    """Asks every worker whether spans are active. Returns their ``latent_status``.

    Raises RuntimeError if they are not, for example if ``engine_arguments`` did not reach the engine.
    """
    try:
        statuses = engine.collective_rpc("latent_status")
    except Exception as error:
        raise RuntimeError(_NOT_LIVE) from error
    return _all_live(statuses)


async def require_live_async(engine: AsyncLLM) -> list[dict[str, Any]]:
    """Does what ``require_live`` does, for an AsyncLLM."""
    try:
        statuses = await engine.collective_rpc("latent_status")
    except Exception as error:
        raise RuntimeError(_NOT_LIVE) from error
    return _all_live(statuses)


_NOT_LIVE = "this engine does not decode latent spans; were engine_arguments() passed to it?"


def _all_live(statuses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not all(status["live"] for status in statuses):
        raise RuntimeError(_NOT_LIVE)
    return statuses
