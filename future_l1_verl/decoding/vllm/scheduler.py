"""The scheduler of latent spans: checks requests, keeps cached blocks separate, and adds latents to the output."""

from functools import wraps
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from future_l1_verl.decoding.vllm.compatibility import check_config, check_vllm
from future_l1_verl.decoding.vllm.outputs import LatentRunnerOutput
from future_l1_verl.decoding.vllm.settings import EngineSettings

# vLLM's own, so that a second engine in this process replaces what the first one installed instead of wrapping it.
_REQUEST_OF = vars(Request)["from_engine_core_request"].__func__
_EXTRA_KEYS = kv_cache_utils.generate_block_hash_extra_keys


def check_request(request: EngineCoreRequest, settings: EngineSettings) -> None:
    """Raises ValueError, naming the request, if it has settings that do not work with latent spans."""
    params, prompt, tokens = request.sampling_params, request.prompt_token_ids, settings.tokens
    reasons = []
    if params is None or prompt is None:
        reasons.append("latent spans are for generation from token ids")
    else:
        if params.structured_outputs is not None:
            reasons.append("structured output: a grammar does not know of tokens that are replaced")
        if params.num_logprobs == -1 or params.logprob_token_ids:
            reasons.append("log-probs of chosen tokens or of all: only the sampled and the best ones have a role")
        if params.allowed_token_ids is not None and set(params.allowed_token_ids) <= {tokens.latent}:
            reasons.append("allowed_token_ids of <|latent|> alone: outside a span it cannot be sampled")
    if request.resumable:
        reasons.append("streamed input: a continued prompt would hold latents")
    if params is None or prompt is None or reasons:
        raise ValueError(f"request {request.request_id}: {'; '.join(reasons)}")
    try:
        options = settings.of_request(params)
        if options.sigma > 0 and options.seed is None:  # the trainer could not compute the noise again
            raise ValueError("sigma > 0 needs a seed: request_options(seed=...) or SamplingParams(seed=...)")
    except ValueError as error:
        raise ValueError(f"request {request.request_id}: {error}") from error
    given = options.prompt_latents
    slots, latents = prompt.count(tokens.latent), 0 if given is None else len(given)
    if slots != latents:
        raise ValueError(f"request {request.request_id}: the prompt holds {slots} <|latent|> but comes with {latents} latents")
    if given is None and prompt[-1:] == [tokens.start]:
        raise ValueError(
            f"request {request.request_id}: the prompt ends with <|latent_start|>: spans open in the response, unless "
            "prompt_latents say that it continues one"
        )


def _check_requests(settings: EngineSettings) -> None:
    """Upstream (vllm/v1/request.py) builds a Request from a received message; a ValueError here fails only that request.

    Raised later, in the scheduler or worker, it would end the engine.
    """

    @wraps(_REQUEST_OF)
    def from_engine_core_request(cls: type[Request], request: EngineCoreRequest, block_hasher: Any) -> Request:
        check_request(request, settings)
        return _REQUEST_OF(cls, request, block_hasher)

    Request.from_engine_core_request = classmethod(from_engine_core_request)  # type: ignore[assignment]


def _keep_blocks_private(latent: int) -> None:
    """Upstream (vllm/v1/core/kv_cache_utils.py) hashes a block by its token ids, images and adapters.

    All slots have the same token id but different latents, so a block with a slot must not be found by another request. The
    hash of a block includes that of the block before: blocks after a slot are private too, the prompt stays shared. The
    arrival time separates requests that reuse an id.
    """

    @wraps(_EXTRA_KEYS)
    def generate_block_hash_extra_keys(
        request: Request, start_token_idx: int, end_token_idx: int, start_mm_idx: int
    ) -> tuple[tuple[Any, ...] | None, int]:
        keys, next_mm_idx = _EXTRA_KEYS(request, start_token_idx, end_token_idx, start_mm_idx)
        if latent in request.all_token_ids[start_token_idx:end_token_idx]:
            keys = (*(keys or ()), "latents", request.request_id, request.arrival_time)
        return keys, next_mm_idx

    kv_cache_utils.generate_block_hash_extra_keys = generate_block_hash_extra_keys


class _LatentScheduling(Scheduler):
    """Mixin for vLLM's two schedulers (vllm/v1/core/sched)."""

    asynchronous: bool

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        check_vllm()
        check_config(vllm_config)
        if bool(vllm_config.scheduler_config.async_scheduling) != self.asynchronous:
            raise ValueError(
                f"{type(self).__name__} is for async_scheduling={self.asynchronous}; "
                "name future_l1_verl.decoding.vllm.scheduler.latent_scheduler, which picks the right one"
            )
        super().__init__(vllm_config, *args, **kwargs)
        room = (self.kv_cache_config.num_blocks - 1) * self.block_size  # one block is vLLM's own; its check forgets it
        if self.max_model_len > room:
            raise ValueError(
                f"the KV cache holds {room} tokens, fewer than a request of max_model_len={self.max_model_len}, which would be "
                f"preempted forever: lower max_model_len to {room}, or give the cache more memory"
            )
        settings = EngineSettings.from_vllm(vllm_config)
        self.latent_token = settings.tokens.latent
        _check_requests(settings)
        _keep_blocks_private(self.latent_token)

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Upstream builds the outputs of a step; they have no field for latents.

        A latent is added only if its request wants it back and its token was accepted: async scheduling may drop a token of
        a request that has stopped.
        """
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        if isinstance(model_runner_output, LatentRunnerOutput):
            for client in outputs.values():
                for output in client.outputs:
                    if self.latent_token in output.new_token_ids:
                        output.routed_experts = model_runner_output.latents.get(output.request_id)
        return outputs


class LatentScheduler(_LatentScheduling):
    asynchronous = False


class LatentAsyncScheduler(_LatentScheduling, AsyncScheduler):
    asynchronous = True


def latent_scheduler(vllm_config: VllmConfig, **kwargs: Any) -> Scheduler:
    """Returns the scheduler for the engine's final ``async_scheduling``, which vLLM may have changed from the given value.

    It is given as ``scheduler_cls``; vLLM calls it like a class.
    """
    chosen = LatentAsyncScheduler if vllm_config.scheduler_config.async_scheduling else LatentScheduler
    return chosen(vllm_config=vllm_config, **kwargs)
