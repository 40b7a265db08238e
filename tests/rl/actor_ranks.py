"""``python actor_ranks.py RANK RANKS PORT OUT FUNCTION [ARGUMENTS...]``: one rank of an actor; its result goes to a file."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest  # noqa: F401  the environment of the tests
import torch
from actor_harness import Actor, config, recorded, rows_of, with_old

ABLATIONS = ("grpo", "dapo", "depo", "dapo+ctr", "dapo+div", "la_dapo", "text_only_grpo", "text_only_dapo")


def _rank() -> int:
    return torch.distributed.get_rank()


def _step(checkpoint: Path, ablation: str, data_parallel: int, packed: bool, **options: Any) -> dict[str, Any]:
    """Loss and gradients of the second step on the same rollouts, when the ratios are no longer 1."""
    actor = Actor(config(checkpoint, f"ablation={ablation}"), **options)
    share = 8 // data_parallel
    first = (_rank() % data_parallel) * share if data_parallel > 1 else 0
    shape = {"micro_batch": share, "packed": packed}
    data = with_old(actor, rows_of(recorded(checkpoint), range(first, first + share)), **shape)
    actor.update(data, **shape)
    return actor.update(data, **shape)


def shapes(checkpoint: str) -> dict[str, dict[str, Any]]:
    """The same step padded, packed, and in micro-batches."""
    path = Path(checkpoint)
    actor = Actor(config(path, "ablation=depo"))
    data = with_old(actor, recorded(path))
    actor.update(data)
    state = {name: tensor.clone() for name, tensor in actor.engine.module.state_dict().items()}
    found = {}
    for name, options in {
        "padded": {},
        "packed": {"packed": True},
        "padded micro-batches": {"micro_batch": 2},
        "packed micro-batches": {"micro_batch": 4, "packed": True},
    }.items():
        actor.engine.module.load_state_dict(state)
        found[name] = actor.update(data, **options)
    return found


def data_parallel(checkpoint: str) -> dict[str, Any]:
    return _step(Path(checkpoint), "depo", torch.distributed.get_world_size(), packed=False)


def ablations(checkpoint: str) -> dict[str, Any]:
    """Two optimiser steps of every ablation on recorded rollouts."""
    path, found = Path(checkpoint), {}
    for name in ABLATIONS:
        tree = config(path, f"ablation={name}")
        actor = Actor(tree)
        data = with_old(actor, recorded(path, tree.latent.likelihood, tree.latent.spans))
        before = actor.parameters()
        steps = [actor.update(data)["metrics"] for _ in range(2)]
        moved = {key: float((value - before[key]).abs().max()) for key, value in actor.parameters().items()}
        found[name] = {"steps": steps, "moved": moved}
    return found


if __name__ == "__main__":
    rank, ranks, port, out, function, *arguments = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE=ranks, LOCAL_RANK="0")
    import verl  # noqa: F401  its plugins

    torch.distributed.init_process_group("gloo")
    result = globals()[function](*arguments)
    (Path(out) / f"{function}-{ranks}-{rank}.pickle").write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()
