"""Makes engines of our checkpoints decode latents; vLLM loads it in each process (``vllm.general_plugins``, pyproject.toml).

If the checkpoint of an engine is one of ours, the engine decodes latents, however it is started, and ``vllm serve CHECKPOINT``
needs no flag. Engines of other models are unchanged and never run code that depends on the version of vLLM.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from future_l1_verl.latents.tokens import OURS

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
    from vllm.engine.arg_utils import EngineArgs


def decodes_latents(model_config: ModelConfig) -> bool:
    """Returns whether ``config.json`` has the key that only our checkpoints have; other projects have latent tokens too."""
    return getattr(model_config.hf_config, OURS, None) is not None


@cache
def register() -> None:
    """Wraps vLLM's creation of an engine's config, once per process; vLLM calls this function more often.

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
