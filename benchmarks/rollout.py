"""``python benchmarks/rollout.py --model DIR``: token rate of rollouts with latents, against the same engine on text alone.

``DIR`` is a checkpoint with latent tokens. Two vLLM engines are asked by turns: one as stage 2 uses it (spans decoded,
latents and log-probs returned), and stock vLLM on the same weights, which knows nothing of latents. Both get the same
prompts and stage 2's sampling settings, and write exactly ``--max-tokens`` tokens an answer. ``--opens`` is added to the logit
of the start token on both sides, so that a large share of the latent engine's tokens are latents; to stock vLLM it is a token
like any other.

Each batch size is measured in ``--rounds`` alternating pairs, for each combination of CUDA graphs and async scheduling that
the machine has (a CPU: neither). The engines are processes of their own. Prints a table and a JSON line: tokens a second,
and the ratio latent / text within the pairs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from engines import Engine, engine, logit_bias, prompts, without_latents
from rich.console import Console
from rich.table import Table
from timing import alternate, ratio, shown, spread

from future_l1_verl.latents.tokens import LatentSettings


def sampling(model: Path, max_tokens: int, opens: float) -> dict[str, Any]:
    """Returns what stage 2 samples with, and answers of one length."""
    return {
        "max_tokens": max_tokens,
        "temperature": 0.9,
        "top_p": 0.99,
        "ignore_eos": True,
        "logprobs": 0,
        "logit_bias": logit_bias(model, opens),
    }


def measure(engines: dict[str, Engine], model: Path, batch: int, max_tokens: int, rounds: int, opens: float) -> dict[str, Any]:
    latent, asked = LatentSettings.from_checkpoint(model).tokens.latent, prompts(batch)
    chosen = sampling(model, max_tokens, opens)
    tokens, slots = Counter(), Counter()

    def ask(name: str) -> float:
        seconds, answers = engines[name].generate(asked, **chosen)
        tokens[name] += sum(len(answer.token_ids) for answer in answers)
        slots[name] += sum(answer.token_ids.count(latent) for answer in answers)
        return seconds

    seconds = alternate({name: partial(ask, name) for name in engines}, rounds)
    rates = {name: [batch * max_tokens / each for each in values] for name, values in seconds.items()}
    return {
        "batch": batch,
        "tokens": dict(tokens),
        "latent_share": slots["latent"] / tokens["latent"],
        "tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "latent_to_text": ratio(rates["latent"], rates["text"], best=max),
    }


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    found, switches = [], (True, False) if torch.cuda.is_available() else (False,)
    share = {"gpu_memory_utilization": 0.4} if torch.cuda.is_available() else {}
    with tempfile.TemporaryDirectory() as folder:
        text = without_latents(args.model, Path(folder) / "text")
        for graphs, asynchronous in product(switches, switches):
            settings = {"dtype": args.dtype, "enforce_eager": not graphs, "async_scheduling": asynchronous, **share}
            settings["logprobs_mode"] = "processed_logprobs"  # verl's
            with (
                engine(args.model, latents=True, **settings) as with_latents,
                engine(text, latents=False, **settings) as stock,
            ):
                for batch in args.batch:
                    both = {"latent": with_latents, "text": stock}
                    measured = measure(both, args.model, batch, args.max_tokens, args.rounds, args.opens)
                    found.append({"cuda_graphs": graphs, "async": asynchronous, **measured})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--opens", type=float, default=5.0)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    found = run(args)
    table = Table("CUDA graphs", "async", "batch", "tokens", "latents", "latent [tokens/s]", "text [tokens/s]", "latent / text")
    for row in found:
        rate = row["tokens_per_s"]
        table.add_row(
            *(str(row[name]) for name in ("cuda_graphs", "async", "batch")), str(row["tokens"]["latent"]),
            f"{row['latent_share']:.0%}", shown(rate["latent"], 0), shown(rate["text"], 0), shown(row["latent_to_text"]),
        )  # fmt: skip
    Console(width=150).print(table)
    print(json.dumps({"max_tokens": args.max_tokens, "rounds": args.rounds, "opens": args.opens, "rows": found}))


if __name__ == "__main__":
    main()
