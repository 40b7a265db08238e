"""The actor's worker if the rollout has separate devices."""

from collections.abc import Callable
from typing import Any

import torch
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.plugin.platform import get_platform


class SeparateWorker(DetachActorWorker):
    @property
    def copy_handler(self) -> Callable[[torch.nn.Module], Any]:
        """Upstream's (verl/utils/fsdp_utils.py) is ``tensor.cpu()``, which does not copy parameters that are on the host, as
        they are without an accelerator or with ``param_offload``: the saved weights would change with every update. Here they
        are copied, after the offload's queued copies to the host have ended."""
        upstream = super().copy_handler

        def copy(module: torch.nn.Module) -> Any:
            shards, spec = upstream(module)
            if next(module.parameters()).device.type != "cpu":
                return shards, spec
            get_platform().synchronize()
            return {name: (shard.clone(), each) for name, (shard, each) in shards.items()}, spec

        return copy
