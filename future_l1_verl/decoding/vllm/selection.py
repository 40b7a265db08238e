"""Chooses worker and scheduler for an engine of our checkpoints, and refuses what cannot work in the process that was asked.

Settings are refused as the engine's are made, requests as they come in. Worker and scheduler refuse them as well, but in
another process, where the reason is lost among the logs. `decoding.plugin` calls `choose` and `check`.
"""

from __future__ import annotations

from functools import cache, partial, wraps
from typing import Any

import psutil
from vllm.config import CacheConfig, ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from future_l1_verl import versions
from future_l1_verl.decoding.plugin import decodes_latents
from future_l1_verl.decoding.vllm import SCHEDULERS, WORKER
from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.latents.tokens import LatentSettings


def choose(arguments: EngineArgs, model_config: ModelConfig) -> None:
    """Chooses our worker and scheduler.

    Raises UnsupportedVersion for an untested vLLM. Raises ValueError if the checkpoint lacks one of the latent keys, or if
    another worker or scheduler was asked for: it would answer in text with ``<|latent|>`` among it.
    """
    versions.require("vllm")
    try:
        LatentSettings.from_config(model_config.hf_config)
    except ValueError as error:
        raise ValueError(f"{arguments.model}: {error}") from error
    for name, ours in (("worker_cls", ("auto", WORKER)), ("scheduler_cls", (None, *SCHEDULERS))):
        if (given := getattr(arguments, name)) not in ours:
            raise ValueError(f"{arguments.model} decodes latents, which {name}={given} does not; leave {name} out")
    arguments.worker_cls, arguments.scheduler_cls = WORKER, arguments.scheduler_cls or SCHEDULERS[0]
    _choose_memory(arguments)


def _choose_memory(arguments: EngineArgs) -> None:
    """Gives the key-value cache a quarter of the free memory of a CPU, at most 4 GiB, unless something was said about it.

    Upstream (vllm/config/cache.py) wants 92 % of all memory, as of a GPU that nothing else uses, and starts on few machines.
    """
    from vllm.platforms import current_platform

    unsaid = arguments.gpu_memory_utilization == CacheConfig.gpu_memory_utilization and arguments.kv_cache_memory_bytes is None
    if current_platform.is_cpu() and unsaid:  # VLLM_CPU_KVCACHE_SPACE comes after it and wins (vllm/platforms/cpu.py)
        arguments.kv_cache_memory_bytes = min(psutil.virtual_memory().available // 4, 4 * 2**30)


def check(config: VllmConfig) -> None:
    """Raises ValueError for what latents do not work with, of which upstream knows nothing, and for impossible options; sees to
    it that requests are checked as well."""
    from future_l1_verl.decoding.vllm.compatibility import check_config  # brings in the model runner

    check_config(config)
    EngineSettings.from_vllm(config)
    _check_requests()


@cache
def _check_requests() -> None:
    """Wraps, once a process, the front end's input processor (vllm/v1/engine/input_processor.py)."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.input_processor import InputProcessor

    from future_l1_verl.decoding.vllm.scheduler import check_request

    upstream_init, upstream_process = InputProcessor.__init__, InputProcessor.process_inputs

    @wraps(upstream_init)
    def init(self: InputProcessor, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        upstream_init(self, vllm_config, *args, **kwargs)
        vars(self)["check_latents"] = None
        if decodes_latents(vllm_config.model_config):
            vars(self)["check_latents"] = partial(check_request, settings=EngineSettings.from_vllm(vllm_config))

    @wraps(upstream_process)
    def process_inputs(self: InputProcessor, *args: Any, **kwargs: Any) -> EngineCoreRequest:
        """Upstream makes what goes to the engine of a prompt and its parameters.

        Raises VLLMValidationError, a ValueError, for a request that cannot work. The chat API answers it with status 400 and
        its message; it answers any other ValueError so too, but closes the connection, and what fails in the engine with a
        bare 500.
        """
        request = upstream_process(self, *args, **kwargs)
        if (check_latents := vars(self)["check_latents"]) is not None:
            try:
                check_latents(request)
            except ValueError as error:
                raise VLLMValidationError(str(error)) from error
        return request

    InputProcessor.__init__, InputProcessor.process_inputs = init, process_inputs
