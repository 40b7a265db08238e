"""``python actor_ranks.py RANK RANKS PORT OUT FUNCTION [ARGUMENTS...]``: one rank of an actor; its result goes to a file."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest  # noqa: F401  the environment of the tests
import torch
from actor_harness import Actor, apart, batch, config, recorded, rows_of, text_row, with_old, with_rewards
from tensordict import TensorDict

from future_l1_verl.modeling import attention

MODEL = "actor_rollout_ref.model"
ABLATIONS = ("grpo", "dapo", "depo", "dapo+ctr", "dapo+div", "la_dapo", "text_only_grpo", "text_only_dapo")


def _rank() -> int:
    return torch.distributed.get_rank()


def _step(checkpoint: Path, ablation: str, data_parallel: int, *overrides: str, **options: Any) -> dict[str, Any]:
    """Loss and gradients of the second step on the same rollouts, when the ratios are no longer 1."""
    actor = Actor(config(checkpoint, f"ablation={ablation}", *overrides), **options)
    share = 8 // data_parallel
    first = (_rank() % data_parallel) * share if data_parallel > 1 else 0
    data = with_old(actor, rows_of(recorded(checkpoint), range(first, first + share)), micro_batch=share)
    actor.update(data, micro_batch=share)
    return actor.update(data, micro_batch=share)


def shapes(checkpoint: str) -> dict[str, dict[str, Any]]:
    """The same step in one micro-batch, and in several of so many rows or tokens; a question of 4 answers has some 90."""
    path = Path(checkpoint)
    actor = Actor(config(path, "ablation=depo"))
    data = with_old(actor, recorded(path))
    actor.update(data)
    state = {name: tensor.clone() for name, tensor in actor.engine.module.state_dict().items()}
    found = {}
    for name, options in {
        "whole": {},
        "rows": {"micro_batch": 2},
        "questions": {"max_tokens": 130},
        "parts of questions": {"max_tokens": 60},
    }.items():
        actor.engine.module.load_state_dict(state)
        found[name] = actor.update(data, **options)
    return found


# Everything that may be between a question and its log-probs: each is compared with its rows apart.
VARIANTS: dict[str, tuple[str, Sequence[str], list[str]]] = {
    "images": ("la_dapo", ("image", "image"), []),
    "text": ("la_dapo", ("text", "text"), []),
    "video": ("la_dapo", ("video", "video"), []),
    "mixed": ("depo", ("both", "text", "image", "video"), []),
    "LoRA": ("depo", ("image", "text"), [f"{MODEL}.lora_rank=4"]),
    "checkpointing": ("depo", ("image", "text"), [f"{MODEL}.enable_gradient_checkpointing=true"]),
    "trained tower": ("depo", ("image", "video"), ["latent.freeze_tower=false", "latent.freeze_merger=false"]),
    "untied": ("la_dapo", ("image", "text"), [f"+{MODEL}.override_config.model_config.tie_word_embeddings=false"]),
    "gaussian": ("la_dapo", ("image", "text"), ["latent.likelihood=gaussian", "latent.sigma=0.3"]),
}


def together_and_apart(checkpoint: str, *names: str) -> dict[str, dict[str, float]]:
    """Of each variant: how far log-probs, densities and gradients of questions are from those of their rows, relatively, and
    how far if answers saw their siblings."""
    return {name: _together_and_apart(Path(checkpoint), *VARIANTS[name]) for name in names}


def each_ablation_together_and_apart(checkpoint: str) -> dict[str, dict[str, float]]:
    return {name: _together_and_apart(Path(checkpoint), name, ("image", "text"), []) for name in ABLATIONS}


def _together_and_apart(path: Path, ablation: str, shown: Sequence[str], overrides: list[str]) -> dict[str, float]:
    tree = config(path, f"ablation={ablation}", *overrides)
    actor = Actor(tree)
    data = with_rewards(recorded(path, tree.latent.likelihood, tree.latent.spans, shown), tree)
    rows = len(data)
    data = with_old(actor, data, micro_batch=rows)
    actor.update(data, micro_batch=rows)
    state = {name: tensor.clone() for name, tensor in actor.engine.module.state_dict().items()}

    def measured(batch: TensorDict) -> dict[str, torch.Tensor]:
        actor.engine.module.load_state_dict(state)
        entries = actor.infer(batch, micro_batch=rows)
        gradients = actor.update(batch, micro_batch=rows)["gradients"]
        return {
            "log_probs": entries["log_probs"].values(),
            "density": entries["latent_term"].values(),
            "gradient": torch.cat([gradient.flatten() for gradient in gradients.values()]),
        }

    expected = measured(apart(data))
    found = {name: _distance(value, expected[name]) for name, value in measured(data).items()}
    with _one_sequence():
        mixed = measured(data)
    return found | {f"{name}, mixed up": _distance(value, expected[name]) for name, value in mixed.items()}


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm()) if theirs.any() else float((ours - theirs).abs().max())


@contextmanager
def _one_sequence() -> Iterator[None]:
    """The control: every token sees all before it."""
    kept = attention.attend

    def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Any, scale: float, kernel: Any) -> Any:
        rows = (x.transpose(0, 1) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*rows, is_causal=True, scale=scale, enable_gqa=True).transpose(
            0, 1
        )

    attention.attend = causal
    try:
        yield
    finally:
        attention.attend = kept


def one_update(checkpoint: str) -> dict[str, dict[str, Any]]:
    """The first update of a batch with log-probs of a pass before it, and with its own."""
    path, found = Path(checkpoint), {}
    for ablation in ("la_dapo", "depo", "grpo"):
        tree = config(path, f"ablation={ablation}")
        actor = Actor(tree)
        data = with_old(actor, with_rewards(recorded(path), tree))
        mask = data["response_mask"]
        # The second token of each answer was written by other weights, three versions ago, and rows 4 and 5 only fill up.
        lag = [torch.where(torch.arange(len(row)) == 1, 3, 0 if i not in (4, 5) else -1) for i, row in enumerate(mask.unbind())]
        data["lag"] = torch.nested.as_nested_tensor(lag, layout=torch.jagged)
        rollout = torch.nested.as_nested_tensor(
            [
                row + 0.25 * (torch.arange(len(row)) == 0) + 0.5 * (torch.arange(len(row)) == 1)
                for row in data["old_log_probs"].unbind()
            ],
            layout=torch.jagged,
        )
        data["rollout_log_probs"] = rollout
        state = {name: tensor.clone() for name, tensor in actor.engine.module.state_dict().items()}
        before = actor.update(data)
        actor.engine.module.load_state_dict(state)
        found[ablation] = {"pass before": before, "own": actor.update(data, one_update=True, micro_batch=4)}
    return found


def data_parallel(checkpoint: str) -> dict[str, Any]:
    return _step(Path(checkpoint), "depo", torch.distributed.get_world_size())


def sequence_parallel(checkpoint: str) -> dict[str, Any]:
    """The same step with the sequence cut over all ranks (Ulysses)."""
    from ulysses_on_cpu import install

    install()
    return _step(Path(checkpoint), "depo", 1, sequence_parallel=torch.distributed.get_world_size())


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


def alone(checkpoint: str) -> dict[str, Any]:
    """All that one rank is asked for, in one process, whose start takes longest; Ulysses last, for it replaces collectives."""
    found = {function.__name__: function(checkpoint) for function in (shapes, one_update, ablations, latent_bandit)}
    found["together_and_apart"] = together_and_apart(checkpoint, *VARIANTS)
    found["each_ablation_together_and_apart"] = each_ablation_together_and_apart(checkpoint)
    found |= {rewarded: length_bandit(checkpoint, rewarded) for rewarded in ("longer", "shorter")}
    return found | parallel(checkpoint)


def parallel(checkpoint: str) -> dict[str, Any]:
    return {function.__name__: function(checkpoint) for function in (data_parallel, sequence_parallel)}


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
