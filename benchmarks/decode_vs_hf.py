"""``python benchmarks/decode_vs_hf.py --model DIR``: tokens a second of the vLLM engine with latents, against transformers.

The same prompts of random words, greedy, every answer ``--max-tokens`` long: the engine on all of ``--batch`` prompts at
once; a loop with a key-value cache over plain transformers, one prompt at a time and all of them as one batch; and the
oracle (decoding/hf.py), which runs the whole sequence anew for each token. What goes one at a time has the same rate for
any number of prompts: it gets the first ``--alone`` of them. ``--opens`` is added to the logit of the start token
everywhere.

Prints a table and a JSON line: rates over ``--rounds`` alternating rounds, and by what the engine is faster within each. In
float32 it fails unless all answers are the same, token for token.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engines import Engine, engine, logit_bias, prompts
from loops import cached
from rich.console import Console
from rich.table import Table
from timing import alternate, ratio, shown, spread
from transformers import AutoModelForImageTextToText

from future_l1_verl.decoding import hf
from future_l1_verl.latents.tokens import LatentSettings

Answers = list[list[int]]


def ways(llm: Engine, args: argparse.Namespace) -> dict[str, Callable[[], tuple[float, Answers]]]:
    """Seconds and answers of each."""
    latent, limit, bias = LatentSettings.from_checkpoint(args.model), args.max_tokens, logit_bias(args.model, args.opens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=args.dtype).eval().to(device)
    vector = torch.zeros(model.lm_head.out_features, dtype=model.dtype, device=device)
    vector[list(bias)] = torch.tensor(list(bias.values()), dtype=model.dtype, device=device)
    model.lm_head.bias = torch.nn.Parameter(vector)
    asked = prompts(args.batch)

    def inputs(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor(rows, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def vllm() -> tuple[float, Answers]:
        seconds, answers = llm.generate(asked, max_tokens=limit, temperature=0.0, ignore_eos=True, logit_bias=bias)
        return seconds, [answer.token_ids for answer in answers]

    def timed(decode: Callable[[], Answers]) -> tuple[float, Answers]:
        started = time.perf_counter()
        answers = decode()
        return time.perf_counter() - started, answers

    def alone() -> Answers:
        return [cached(model, inputs([row]), latent, limit, None)[0] for row in asked[: args.alone]]

    def oracle() -> Answers:
        rows = (inputs([row]) for row in asked[: args.alone])
        found = (hf.generate(model, row, latent, max_new_tokens=limit, eos_token_id=None) for row in rows)
        return [answer.token_ids.tolist() for answer in found]

    return {
        "vLLM": vllm,
        "cached, one batch": partial(timed, lambda: cached(model, inputs(asked), latent, limit, None)),
        "cached, one at a time": partial(timed, alone),
        "oracle": partial(timed, oracle),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    answers: dict[str, Answers] = {}
    seconds: dict[str, list[float]] = {}

    with engine(args.model, latents=True, dtype=args.dtype, **json.loads(args.engine)) as llm:

        def measured(name: str, way: Callable[[], tuple[float, Answers]]) -> float:
            took, answers[name] = way()
            return took / sum(map(len, answers[name]))

        seconds = alternate({name: partial(measured, name, way) for name, way in ways(llm, args).items()}, args.rounds)
    expected = answers["vLLM"]
    different = {name: sum(a != b for a, b in zip(found, expected, strict=False)) for name, found in answers.items()}
    if args.dtype == "float32" and any(different.values()):
        raise SystemExit(f"other answers than vLLM's: {different}")
    latent = LatentSettings.from_checkpoint(args.model).tokens.latent
    return {
        "batch": args.batch,
        "max_tokens": args.max_tokens,
        "latent_share": sum(row.count(latent) for row in expected) / sum(map(len, expected)),
        "answers": {name: len(found) for name, found in answers.items()},
        "different_answers": different,
        "tokens_per_s": {name: spread([1 / each for each in values]) for name, values in seconds.items()},
        "vllm_times_faster": {name: ratio(values, seconds["vLLM"]) for name, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--alone", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--opens", type=float, default=1.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engine", default="{}", help="further arguments of the engine, JSON")
    args = parser.parse_args()
    found = run(args)
    table = Table(
        "", "answers", "tokens/s", "vLLM is faster by", title=f"{found['latent_share']:.0%} of the tokens are latents"
    )
    for name, rate in found["tokens_per_s"].items():
        table.add_row(name, str(found["answers"][name]), shown(rate, 0), shown(found["vllm_times_faster"][name], 1))
    Console(width=128).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
