"""Chooses worker and scheduler for engines of our checkpoints, and refuses bad settings and requests in the front end.

Settings are checked when the engine's config is made, requests when they arrive. Worker and scheduler check them as well, but
in another process, where the reason is hard to find in the logs. `decoding.plugin` calls `choose` and `check`.
"""

from functools import cache, partial, wraps
from typing import Any, cast

import psutil
import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from future_l1_verl import versions
from future_l1_verl.decoding.plugin import decodes_latents
from future_l1_verl.decoding.vllm import SCHEDULERS, WORKER
from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.latents.tokens import LatentSettings

BLOCK = 128  # tokens of a block of the key-value cache on a CPU (vllm/platforms/cpu.py)


def choose(arguments: EngineArgs, model_config: ModelConfig) -> None:
    """Chooses our worker and scheduler.

    Raises UnsupportedVersion for an untested vLLM. Raises ValueError if the checkpoint lacks one of the latent keys, or if
    another worker or scheduler was requested: its text would contain ``<|latent|>``.
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
    _choose_memory(arguments, model_config)


def _choose_memory(arguments: EngineArgs, model_config: ModelConfig) -> None:
    """Gives the key-value cache on a CPU, unless its size was set, what ``max_num_seqs`` answers of full length need; at most a
    quarter of the free memory, and 4 GiB.

    Upstream (vllm/config/cache.py) wants 92 % of all memory, as on a GPU that nothing else uses, and fails on most machines.
    """
    from vllm.platforms import current_platform

    unsaid = arguments.gpu_memory_utilization == CacheConfig.gpu_memory_utilization and arguments.kv_cache_memory_bytes is None
    if not current_platform.is_cpu() or not unsaid:
        return
    # VLLM_CPU_KVCACHE_SPACE comes after it and wins (vllm/platforms/cpu.py).
    heads = model_config.get_total_num_hidden_layers() * model_config.get_total_num_kv_heads()
    token = 2 * heads * model_config.get_head_size() * cast(torch.dtype, model_config.dtype).itemsize  # keys and values
    answer = token * (model_config.max_model_len + 2 * (arguments.block_size or BLOCK))  # one is not full, one is vLLM's own
    most = (arguments.max_num_seqs or SchedulerConfig.DEFAULT_MAX_NUM_SEQS) * answer
    arguments.kv_cache_memory_bytes = min(psutil.virtual_memory().available // 4, 4 * 2**30, most)


def check(config: VllmConfig) -> None:
    """Raises ValueError for impossible options and for settings that latents do not work with but upstream accepts; makes
    the front end check requests as well."""
    from future_l1_verl.decoding.vllm.compatibility import check_config  # imports the model runner

    check_config(config)
    EngineSettings.from_vllm(config)
    _check_requests()


@cache
def _check_requests() -> None:
    """Wraps, once per process, the front end's input processor (vllm/v1/engine/input_processor.py)."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.input_processor import InputProcessor

    from future_l1_verl.decoding.vllm.scheduler import check_request

    upstream_init, upstream_process = InputProcessor.__init__, InputProcessor.process_inputs

    @wraps(upstream_init)
    def init(self: InputProcessor, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        upstream_init(self, vllm_config, *args, **kwargs)
        checks = decodes_latents(vllm_config.model_config)
        self.check_latents = partial(check_request, settings=EngineSettings.from_vllm(vllm_config)) if checks else None  # type: ignore[attr-defined]

    @wraps(upstream_process)
    def process_inputs(self: InputProcessor, *args: Any, **kwargs: Any) -> EngineCoreRequest:
        """Upstream builds the engine's request from a prompt and its parameters.

        Raises VLLMValidationError for a request that cannot work. The chat API answers it with status 400 and
        its message. It does the same for any other ValueError, but closes the connection; an error in the engine is answered
        with a 500 without a message.
        """
        request = upstream_process(self, *args, **kwargs)
        if (check_latents := self.check_latents) is not None:  # type: ignore[attr-defined]
            try:
                check_latents(request)
            except ValueError as error:
                raise VLLMValidationError(str(error)) from error
        return request

    InputProcessor.__init__, InputProcessor.process_inputs = init, process_inputs
