"""``python benchmarks/actor_step.py --model DIR``: what latents cost a training step of the actor.

One rank of the actor's engine (FSDP2) makes steps (forward, backward, optimiser) on ``--rows`` rollouts of ``--length`` tokens.
``text`` is the same engine on sequences of the same lengths without slots, so that nothing is injected and nothing scored
by density; ``vmf``, ``gaussian`` and ``none`` are the likelihoods of latents, with about ``--share`` of the tokens in slots.

Prints a table and a JSON line: milliseconds over ``--rounds`` alternating rounds, and the ratio to ``text`` within each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engines import WORDS
from one_rank import one_rank
from rich.console import Console
from rich.table import Table
from tensordict import TensorDict
from timing import alternate, ratio, shown, spread

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.platform.launch import take_platform

sys.path.append(str(Path(__file__).parents[1] / "tests" / "rl"))

LIKELIHOODS = {
    "vmf": ["latent.likelihood=vmf"],
    "gaussian": ["latent.likelihood=gaussian", "latent.sigma=0.1"],
    "none": ["latent.likelihood=none", "latent_loss.kl_coef=0"],
}


def rollouts(checkpoint: Path, rows: int, length: int, hidden: int, share: float) -> TensorDict:
    """Random text with full spans in between, as many as make up ``share`` of the tokens; no span at 0."""
    from actor_harness import batch, text_row

    settings, generator = LatentSettings.from_checkpoint(checkpoint), torch.Generator().manual_seed(0)
    tokens, budget = settings.tokens, settings.max_latents
    span = torch.tensor([tokens.start, *[tokens.latent] * budget, tokens.end])
    every = round(budget / share) if share else length + 1
    if every < len(span):
        raise SystemExit(f"spans of {budget} latents make up at most {budget / len(span):.2f} of the tokens")
    made = []
    for _ in range(rows):
        response = torch.randint(WORDS.start, WORDS.stop, (length,), generator=generator)
        for first in range(every - len(span), length - len(span), every):
            response[first : first + len(span)] = span
        slots = int((response == tokens.latent).sum())
        made.append(text_row(response, torch.randn(slots, hidden, generator=generator), settings))
    return batch(made)


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step, by way; and the share of slots in the sequences with spans."""
    from actor_harness import Actor, config, with_old

    shape = {"micro_batch": args.rows}
    overrides, platform = json.loads(args.overrides), "cuda" if torch.cuda.is_available() else "cpu"
    take_platform(platform)
    actors = {
        name: Actor(config(args.model, *likelihood, *overrides, platform=platform)) for name, likelihood in LIKELIHOODS.items()
    }
    hidden = actors["vmf"].engine.module.get_input_embeddings().embedding_dim
    with_spans = rollouts(args.model, args.rows, args.length, hidden, args.share)
    work = {name: (actor, with_spans) for name, actor in actors.items()}
    work["text"] = (actors["vmf"], rollouts(args.model, args.rows, args.length, hidden, 0.0))
    work = {name: (actor, with_old(actor, data, **shape)) for name, (actor, data) in work.items()}

    def step(actor: Any, data: TensorDict) -> float:
        prepared = actor._prepared(data, **shape)
        with actor.engine.train_mode():
            started = time.perf_counter()
            actor.engine.train_batch(prepared, loss_function=actor.loss)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return 1000 * (time.perf_counter() - started)

    slots = sum(map(len, with_spans["latents"].unbind()))
    tokens = {name: int(data["input_ids"].values().numel()) for name, (_, data) in work.items()}
    found = alternate({name: partial(step, *pair) for name, pair in work.items()}, args.rounds)
    return {"tokens": tokens, "latent_share": slots / tokens["vmf"], "milliseconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--overrides", default="[]", help="of the config tree, a JSON list")
    args = parser.parse_args()
    with one_rank():
        found = steps(args)
    times = found["milliseconds"]
    found["milliseconds"] = {name: spread(values) for name, values in times.items()}
    found["to_text"] = {name: ratio(values, times["text"]) for name, values in times.items()}
    table = Table(
        "", "step [ms]", "times text", title=f"{args.rows} x {args.length} tokens, {found['latent_share']:.0%} latents"
    )
    for name in times:
        table.add_row(name, shown(found["milliseconds"][name], 1), shown(found["to_text"][name]))
    Console(width=128).print(table)
    print(json.dumps({"rows": args.rows, "length": args.length, **found}))


if __name__ == "__main__":
    main()
