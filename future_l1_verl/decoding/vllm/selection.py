"""An engine whose checkpoint has latent tokens decodes latents, whoever starts it: ``vllm serve CHECKPOINT`` needs no flag."""

from __future__ import annotations

from functools import wraps
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from future_l1_verl import versions
from future_l1_verl.decoding.vllm import SCHEDULERS, WORKER
from future_l1_verl.latents.tokens import CONFIG_KEYS

# vLLM's own, so that installing twice wraps them once.
_CREATE_MODEL_CONFIG = EngineArgs.create_model_config
_CREATE_ENGINE_CONFIG = EngineArgs.create_engine_config


@wraps(_CREATE_MODEL_CONFIG)
def create_model_config(self: EngineArgs) -> ModelConfig:
    """Upstream (vllm/engine/arg_utils.py) reads the checkpoint's ``config.json``, the first time that anything in vLLM does;
    worker and scheduler are chosen after it.

    Raises UnsupportedVersion for an untested vLLM, and ValueError if another worker or scheduler was asked for: the checkpoint
    would answer in text with ``<|latent|>`` among it.
    """
    model_config = _CREATE_MODEL_CONFIG(self)
    if _has_latents(model_config):
        versions.require("vllm")
        for name, ours in (("worker_cls", ("auto", WORKER)), ("scheduler_cls", (None, *SCHEDULERS))):
            if (given := getattr(self, name)) not in ours:
                raise ValueError(f"{self.model} decodes latents, which {name}={given} does not; leave {name} out")
        self.worker_cls, self.scheduler_cls = WORKER, self.scheduler_cls or SCHEDULERS[0]
    return model_config


@wraps(_CREATE_ENGINE_CONFIG)
def create_engine_config(self: EngineArgs, *args: Any, **kwargs: Any) -> VllmConfig:
    """Upstream knows nothing that latents do not work with. Worker and scheduler refuse it as well, but in another process,
    where the reason is lost among the logs."""
    config = _CREATE_ENGINE_CONFIG(self, *args, **kwargs)
    if _has_latents(config.model_config):
        from future_l1_verl.decoding.vllm.compatibility import check_config  # brings in the model runner

        check_config(config)
    return config


def install() -> None:
    EngineArgs.create_model_config = create_model_config
    EngineArgs.create_engine_config = create_engine_config


def _has_latents(model_config: ModelConfig) -> bool:
    return all(getattr(model_config.hf_config, key, None) is not None for key in CONFIG_KEYS)
