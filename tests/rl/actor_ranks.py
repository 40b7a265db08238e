"""``python actor_ranks.py RANK RANKS PORT OUT FUNCTION [ARGUMENTS...]``: one rank of an actor; its result goes to a file."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest  # noqa: F401  the environment of the tests
import torch
from actor_harness import Actor, batch, config, recorded, rows_of, text_row, with_old, with_rewards
from tensordict import TensorDict

ABLATIONS = ("grpo", "dapo", "depo", "dapo+ctr", "dapo+div", "la_dapo", "text_only_grpo", "text_only_dapo")


def _rank() -> int:
    return torch.distributed.get_rank()


def _step(
    checkpoint: Path, ablation: str, data_parallel: int, packed: bool, attention: str = "sdpa", **options: Any
) -> dict[str, Any]:
    """Loss and gradients of the second step on the same rollouts, when the ratios are no longer 1."""
    model = "actor_rollout_ref.model"
    settings = [f"{model}.override_config.attn_implementation={attention}", f"{model}.use_remove_padding={packed}"]
    actor = Actor(config(checkpoint, f"ablation={ablation}", *settings), **options)
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


def sequence_parallel(checkpoint: str) -> dict[str, Any]:
    """The same step with the sequence cut over all ranks (Ulysses)."""
    from ulysses_on_cpu import ATTENTION, install

    install()
    ranks = torch.distributed.get_world_size()
    return _step(Path(checkpoint), "depo", 1, packed=True, sequence_parallel=ranks, attention=ATTENTION)


def ablations(checkpoint: str) -> dict[str, Any]:
    """Two optimiser steps of every ablation on recorded rollouts."""
    path, found = Path(checkpoint), {}
    for name in ABLATIONS:
        tree = config(path, f"ablation={name}")
        actor = Actor(tree)
        data = with_old(actor, with_rewards(recorded(path, tree.latent.likelihood, tree.latent.spans), tree))
        before = actor.parameters()
        steps = [actor.update(data)["metrics"] for _ in range(2)]
        moved = {key: float((value - before[key]).abs().max()) for key, value in actor.parameters().items()}
        found[name] = {"steps": steps, "moved": moved}
    return found


def _entries(actor: Actor, data: TensorDict, name: str) -> list[torch.Tensor]:
    from verl.workers.utils.padding import response_from_nested

    return list(response_from_nested(actor.infer(data, micro_batch=2)[name], data["response_mask"]).unbind())


def _push(actor: Actor, data: TensorDict, advantages: list[float]) -> None:
    """Five steps with one advantage per rollout, on all its entries."""
    mask = data["response_mask"]
    rows = [advantage * row.float() for advantage, row in zip(advantages, mask.unbind(), strict=True)]
    data["advantages"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    data = with_old(actor, data, micro_batch=2)
    for _ in range(5):
        actor.update(data, micro_batch=2)


def length_bandit(checkpoint: str, longer: str) -> dict[str, float]:
    """Two answers alike but for their spans: rewarded is the longer one, or the shorter. How p(end) moves at its choices."""
    path = Path(checkpoint)
    actor = Actor(config(path, "ablation=dapo", "actor_rollout_ref.actor.use_kl_loss=false"))
    settings, generator = actor.loss.keywords["settings"], torch.Generator().manual_seed(0)
    t, rows = settings.tokens, []
    for span in ([t.latent, t.end], [t.latent] * settings.max_latents + [t.end]):
        response = torch.tensor([30, t.start, *span, 31])
        rows.append(text_row(response, torch.randn(len(span) - 1, 128, generator=generator), settings))
    data = batch(rows)

    def choices() -> tuple[float, float]:
        short, long = _entries(actor, data, "log_probs")
        return float(short[3]), float(long[3])  # the free stop after one latent; the free slot instead of it

    before = choices()
    _push(actor, data, [-1.0, 1.0] if longer == "longer" else [1.0, -1.0])
    stop, go_on = choices()
    return {"log p(end)": stop - before[0], "log(1 - p(end))": go_on - before[1]}


def latent_bandit(checkpoint: str) -> dict[str, float]:
    """One answer with two latents, of which one is rewarded. How the cosine of the feeding state to each moves."""
    path = Path(checkpoint)
    overrides = ["ablation=depo", "latent_loss.kl_coef=0", "actor_rollout_ref.actor.use_kl_loss=false", "latent.kappa=1"]
    actor = Actor(config(path, *overrides))
    settings, generator = actor.loss.keywords["settings"], torch.Generator().manual_seed(0)
    t = settings.tokens
    response = torch.tensor([30, t.start, t.latent, t.end, 31])
    rows = [text_row(response, torch.randn(1, 128, generator=generator), settings) for _ in range(2)]
    data = batch(rows)
    only_slots = [(response == t.latent).long()] * 2
    data["response_mask"] = data["loss_mask"] = torch.nested.as_nested_tensor(only_slots, layout=torch.jagged)
    before = [float(row[2]) for row in _entries(actor, data, "latent_term")]
    _push(actor, data, [1.0, -1.0])
    after = [float(row[2]) for row in _entries(actor, data, "latent_term")]
    return {"rewarded": after[0] - before[0], "punished": after[1] - before[1]}


def main(functions: dict[str, Callable[..., Any]]) -> None:
    rank, ranks, port, out, function, *arguments = sys.argv[1:]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE=ranks, LOCAL_RANK="0")
    import verl  # noqa: F401  its plugins

    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    result = functions[function](*arguments)
    (Path(out) / f"{function}-{ranks}-{rank}.pickle").write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(globals())
