"""``python engine_ranks.py RANK RANKS PORT OUT FUNCTION [ARGUMENTS...]``: one rank of an engine; its result goes to a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "rl"))
import actor_ranks
import torch
from actor_harness import Actor, config, recorded, rows_of, with_old
from torch import Tensor
from ulysses_on_cpu import install

MODEL = "actor_rollout_ref.model"
LORA = (f"{MODEL}.lora_rank=4",)


def options(*checkpoints: str) -> dict[str, dict[str, Any]]:
    """For each checkpoint, by the name of its directory: the plain step, the same step with other settings, and LoRA."""
    return {Path(path).name: _options(Path(path)) for path in checkpoints}


def _options(path: Path) -> dict[str, Any]:
    plain = config(path, "ablation=depo")
    return {
        "plain": _second_step(plain, path),
        "checkpointed": _second_step(config(path, "ablation=depo", f"{MODEL}.enable_gradient_checkpointing=true"), path),
        "dynamic": _second_step(plain, path, max_tokens=80),
        "lora": _lora(path, Actor(plain)),
    }


def _second_step(tree: Any, path: Path, **shape: Any) -> dict[str, Any]:
    """Loss and gradients of the second step on the same rollouts, and how often it ran the first layer."""
    actor = Actor(tree)
    data = with_old(actor, recorded(path), **shape)
    actor.update(data, **shape)
    with _counted(actor.engine.module.model.language_model.layers[0].mlp) as calls:
        return actor.update(data, **shape) | {"layer_calls": calls}


@contextmanager
def _counted(module: torch.nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    handle = module.register_forward_pre_hook(lambda *_: calls.append(1))  # recomputing ends early, before other hooks
    try:
        yield calls
    finally:
        handle.remove()


def _lora(path: Path, base: Actor) -> dict[str, Any]:
    """Two steps on adapters; scores of the base model, and of the adapted one with and without its adapters."""
    actor = Actor(config(path, "ablation=depo", *LORA))
    data = with_old(actor, recorded(path))
    before = actor.parameters()
    steps = [actor.update(data)]
    with actor.engine.disable_adapter():
        actor.infer(data)
    steps.append(actor.update(data))
    with actor.engine.disable_adapter():
        disabled = _scores(actor, data)
    return {
        "moved": {name: float((value - before[name]).abs().max()) for name, value in actor.parameters().items()},
        "gradients": [set(step["gradients"]) for step in steps],
        "base": _scores(base, data),
        "disabled": disabled,
        "adapted": _scores(actor, data),
    }


def _scores(actor: Actor, data: Any) -> dict[str, Tensor]:
    output = actor.infer(data)
    return {name: output[name].values().cpu() for name in ("log_probs", "latent_term")}


def sharded(checkpoint: str, strategy: str) -> dict[str, Tensor]:
    actor, path = "actor_rollout_ref.actor", Path(checkpoint)
    settings = [f"{actor}.strategy={strategy}", f"{actor}.fsdp_config.use_orig_params=true"]
    return _scores(Actor(config(path, "ablation=depo", *settings)), recorded(path))


def two_ranks(checkpoint: str) -> dict[str, Any]:
    """The plain step of `options` with the rows, and with every sequence, cut over two ranks."""
    path = Path(checkpoint)
    rank = torch.distributed.get_rank()
    share = rows_of(recorded(path), range(4 * rank, 4 * rank + 4))  # the first rank has all images
    actor = Actor(config(path, "ablation=depo"))
    data = with_old(actor, share, micro_batch=4)
    actor.update(data, micro_batch=4)
    by_rows = actor.update(data, micro_batch=4)

    install()
    actor = Actor(config(path, "ablation=depo"), sequence_parallel=2)
    data = with_old(actor, recorded(path))
    actor.update(data)
    return {"data_parallel": by_rows, "sequence_parallel": actor.update(data)}


if __name__ == "__main__":
    actor_ranks.main(globals())
