"""An engine whose checkpoint has latent tokens decodes latents, whoever starts it: ``vllm serve CHECKPOINT`` needs no flag.

What cannot work is refused in the process that was asked, with the reason: settings as the engine's are made, requests as they
come in. Worker and scheduler refuse it as well, but in another process, where the reason is lost among the logs.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.input_processor import InputProcessor

from future_l1_verl import versions
from future_l1_verl.decoding.vllm import SCHEDULERS, WORKER
from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.latents.tokens import CONFIG_KEYS, LatentSettings

# vLLM's own, so that installing twice wraps them once.
_CREATE_MODEL_CONFIG = EngineArgs.create_model_config
_CREATE_ENGINE_CONFIG = EngineArgs.create_engine_config
_INIT_INPUTS = InputProcessor.__init__
_PROCESS_INPUTS = InputProcessor.process_inputs


@wraps(_CREATE_MODEL_CONFIG)
def create_model_config(self: EngineArgs) -> ModelConfig:
    """Upstream (vllm/engine/arg_utils.py) reads the checkpoint's ``config.json``, the first time that anything in vLLM does;
    worker and scheduler are chosen after it.

    Raises UnsupportedVersion for an untested vLLM. Raises ValueError if the checkpoint has some of the latent keys but not all,
    or if another worker or scheduler was asked for: it would answer in text with ``<|latent|>`` among it.
    """
    model_config = _CREATE_MODEL_CONFIG(self)
    if _has_latents(model_config):
        versions.require("vllm")
        try:
            LatentSettings.from_config(model_config.hf_config)
        except ValueError as error:
            raise ValueError(f"{self.model}: {error}") from error
        for name, ours in (("worker_cls", ("auto", WORKER)), ("scheduler_cls", (None, *SCHEDULERS))):
            if (given := getattr(self, name)) not in ours:
                raise ValueError(f"{self.model} decodes latents, which {name}={given} does not; leave {name} out")
        self.worker_cls, self.scheduler_cls = WORKER, self.scheduler_cls or SCHEDULERS[0]
    return model_config


@wraps(_CREATE_ENGINE_CONFIG)
def create_engine_config(self: EngineArgs, *args: Any, **kwargs: Any) -> VllmConfig:
    """Raises ValueError for what latents do not work with, of which upstream knows nothing, and for impossible options."""
    config = _CREATE_ENGINE_CONFIG(self, *args, **kwargs)
    if _has_latents(config.model_config):
        from future_l1_verl.decoding.vllm.compatibility import check_config  # brings in the model runner

        check_config(config)
        EngineSettings.from_vllm(config)
    return config


@wraps(_INIT_INPUTS)
def init_inputs(self: InputProcessor, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
    _INIT_INPUTS(self, vllm_config, *args, **kwargs)
    self.check_latents = None
    if _has_latents(vllm_config.model_config):
        from future_l1_verl.decoding.vllm.scheduler import check_request  # brings in the model runner

        self.check_latents = partial(check_request, settings=EngineSettings.from_vllm(vllm_config))


@wraps(_PROCESS_INPUTS)
def process_inputs(self: InputProcessor, *args: Any, **kwargs: Any) -> EngineCoreRequest:
    """Upstream (vllm/v1/engine/input_processor.py) makes what goes to the engine of a prompt and its parameters.

    Raises VLLMValidationError, a ValueError, for a request that cannot work. The chat API answers it with status 400 and its
    message; it answers any other ValueError so too, but closes the connection, and what fails in the engine with a bare 500.
    """
    request = _PROCESS_INPUTS(self, *args, **kwargs)
    if self.check_latents is not None:
        try:
            self.check_latents(request)
        except ValueError as error:
            raise VLLMValidationError(str(error)) from error
    return request


def install() -> None:
    EngineArgs.create_model_config = create_model_config
    EngineArgs.create_engine_config = create_engine_config
    InputProcessor.__init__ = init_inputs
    InputProcessor.process_inputs = process_inputs


def _has_latents(model_config: ModelConfig) -> bool:
    """One key is enough: a checkpoint that lost some of them must not be served as one that never had any."""
    return any(getattr(model_config.hf_config, key, None) is not None for key in CONFIG_KEYS)
