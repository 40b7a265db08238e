"""Sends weights from the actor to rollout replicas on separate devices, on machines without an accelerator.

verl's own backends (verl/checkpoint_engine) need NCCL or RDMA. If ``checkpoint_engine.custom_backend_module`` names this
module, it is ``checkpoint_engine.backend=gloo``.
"""

import pickle
from collections.abc import AsyncGenerator, Iterable
from datetime import timedelta
from typing import Any

import ray
import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, TCPStore
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

_PATIENCE = timedelta(seconds=60)


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Broadcasts each tensor from the actor's rank 0 to all workers of all replicas."""

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self.is_master = is_master

    def prepare(self) -> tuple[str, int] | None:
        """Opens the store of the actor's rank 0, at a port that the system chooses, and returns its address."""
        if not self.is_master:
            return None
        host = ray.util.get_node_ip_address()
        self.store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        return host, self.store.port

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[tuple[str, int] | None]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Returns the ranks of actor and rollout; the actor's other ranks, which only help to gather weights, have -1."""
        size = 1 + rollout_world_size

        def shared(ranks: list[int]) -> dict[str, list[Any]]:
            return {"rank": ranks, "world_size": [size] * len(ranks), "address": [metadata[0]] * len(ranks)}

        return shared([0] + [-1] * (actor_wg_world_size - 1)), shared(list(range(1, size)))

    def init_process_group(self, rank: int, world_size: int, address: tuple[str, int]) -> None:
        self.rank = rank
        if rank > 0:
            self.store = TCPStore(*address, is_master=False, timeout=_PATIENCE)
        if rank >= 0:
            self.group = ProcessGroupGloo(self.store, rank, world_size, _PATIENCE)

    def finalize(self) -> None:
        self.group = self.store = None

    async def send_weights(self, weights: Iterable[tuple[str, Tensor]], global_steps: int | None = None) -> None:
        number = 0
        for name, weight in weights:
            if self.rank == 0:
                self.store.set(str(number), pickle.dumps((name, weight.shape, weight.dtype)))
                self.group.broadcast(weight.detach().contiguous(), 0).wait()
                number += 1
        if self.rank == 0:
            self.store.set(str(number), pickle.dumps(None))
            # The store belongs to rank 0, which must not end before the others have read the end from it.
            self.group.barrier().wait()

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, Tensor], None]:
        number = 0
        while (described := pickle.loads(self.store.get(str(number)))) is not None:
            name, shape, dtype = described
            weight = torch.empty(shape, dtype=dtype)
            self.group.broadcast(weight, 0).wait()
            yield name, weight
            number += 1
        self.group.barrier().wait()
