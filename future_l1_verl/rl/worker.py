"""The actor's worker where the rollout has devices of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.plugin.platform import get_platform


class SeparateWorker(DetachActorWorker):
    @property
    def copy_handler(self) -> Callable[[torch.nn.Module], Any]:
        """Upstream's (verl/utils/fsdp_utils.py:1146) is ``tensor.cpu()``, which is no copy of what is on the host already, as
        parameters are without an accelerator and with ``param_offload``: what it keeps would change with every update. Copies
        to the host that the offload has queued must have ended before they are copied on."""
        upstream = super().copy_handler

        def copy(module: torch.nn.Module) -> Any:
            shards, spec = upstream(module)
            if next(module.parameters()).device.type != "cpu":
                return shards, spec
            get_platform().synchronize()
            return {name: (shard.clone(), each) for name, (shard, each) in shards.items()}, spec

        return copy
