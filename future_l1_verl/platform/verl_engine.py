"""verl's FSDP engine on a machine without an accelerator; importing this module registers it for plain language models.

A stock verl job on a CPU names this module as ``actor_rollout_ref.model.external_lib``.
"""

import torch
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class PortableEngine(FSDPEngineWithLMHead):
    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Upstream (transformer_impl.py) keeps a forward-only model in pinned memory, which needs an accelerator; not here."""
        if torch.cuda.is_available():
            return super()._build_fsdp_module(module)
        forward_only = self.engine_config.forward_only
        object.__setattr__(self.engine_config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(self.engine_config, "forward_only", forward_only)
