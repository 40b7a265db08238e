"""Weights over gloo: an actor of two ranks and two rollout workers, each a thread of this process."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

from future_l1_verl.platform import gloo_weights
from future_l1_verl.platform.gloo_weights import GlooCheckpointEngine

WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "scalar": torch.tensor(3.0),
    "half": torch.randn(5).to(torch.bfloat16),
    "empty": torch.zeros(0, 4),
}


@pytest.mark.timeout(300)
def test_every_worker_gets_every_weight_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_weights.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    actor = [GlooCheckpointEngine(0, is_master=rank == 0) for rank in range(2)]
    rollout = [GlooCheckpointEngine(0) for _ in range(2)]

    async def received(engine: GlooCheckpointEngine) -> dict[str, torch.Tensor]:
        return {name: weight async for name, weight in engine.receive_weights()}

    with ThreadPoolExecutor(4) as threads:

        def everywhere(calls: list[Callable[[], Any]]) -> list[Any]:
            return [each.result() for each in [threads.submit(call) for call in calls]]

        for scale in (1, 2):  # as at two steps
            weights = {name: weight * scale for name, weight in WEIGHTS.items()}
            metadata = [engine.prepare() for engine in (*actor, *rollout)]
            # Nobody else can take the port before the others come.
            with pytest.raises(OSError, match="in use"), socket.create_server(metadata[0]):
                pass
            topology = GlooCheckpointEngine.build_topology(2, 2, metadata)
            everywhere([
                partial(engine.init_process_group, **{name: values[rank] for name, values in kwargs.items()})
                for engines, kwargs in zip((actor, rollout), topology, strict=True)
                for rank, engine in enumerate(engines)
            ])  # fmt: skip
            sends = [partial(asyncio.run, engine.send_weights(iter(weights.items()))) for engine in actor]
            receives = [partial(asyncio.run, received(engine)) for engine in rollout]
            for found in everywhere([*sends, *receives])[2:]:
                assert list(found) == list(weights)
                for name, weight in weights.items():
                    assert found[name].dtype == weight.dtype and torch.equal(found[name], weight)
            for engine in (*actor, *rollout):
                engine.finalize()
