"""Makes engines of our checkpoints decode latents; vLLM loads it in each process (``vllm.general_plugins``, pyproject.toml).

It looks at the checkpoint of an engine, and does nothing unless that is one of ours: then the engine decodes latents, whoever
starts it, and ``vllm serve CHECKPOINT`` needs no flag. An engine of another model never gets to code that knows one version.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from future_l1_verl.latents.tokens import OURS

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
    from vllm.engine.arg_utils import EngineArgs


def decodes_latents(model_config: ModelConfig) -> bool:
    """Whether the checkpoint's ``config.json`` has the key that is ours alone; other projects have latent tokens too."""
    return getattr(model_config.hf_config, OURS, None) is not None


@cache
def register() -> None:
    """Wraps, once a process, what every vLLM makes of an engine's arguments; vLLM calls it more often.

    Upstream, ``create_engine_config`` calls ``create_model_config``, the first to read ``config.json``, before it looks at the
    names of worker and scheduler (vllm/engine/arg_utils.py).
    """
    from vllm.engine.arg_utils import EngineArgs

    upstream_model, upstream_engine = EngineArgs.create_model_config, EngineArgs.create_engine_config

    @wraps(upstream_model)
    def create_model_config(self: EngineArgs, *args: Any, **kwargs: Any) -> ModelConfig:
        model_config = upstream_model(self, *args, **kwargs)
        if decodes_latents(model_config):
            from future_l1_verl.decoding.vllm import selection

            selection.choose(self, model_config)
        return model_config

    @wraps(upstream_engine)
    def create_engine_config(self: EngineArgs, *args: Any, **kwargs: Any) -> VllmConfig:
        config = upstream_engine(self, *args, **kwargs)
        if decodes_latents(config.model_config):
            from future_l1_verl.decoding.vllm import selection

            selection.check(config)
        return config

    EngineArgs.create_model_config = create_model_config
    EngineArgs.create_engine_config = create_engine_config
