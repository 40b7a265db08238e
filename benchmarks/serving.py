"""``python benchmarks/serving.py --model DIR --data FILE``: how fast ``vllm serve`` answers many clients at once.

``DIR`` is a checkpoint with latent tokens, ``FILE`` a file of stage 2's form (its clips beside it). ``--clients`` clients ask
its questions, frames included, greedily, each the next as soon as it has its answer:

* ``latents``: of ``vllm serve DIR`` without a flag about latents;
* ``returned``: the same, and the latents come back with each answer;
* ``text``: with ``--additional-config '{"latent": {"spans": false}}'``: the start token is never sampled;
* ``AsyncLLM``: of an engine of this process, without HTTP, as an evaluation asks it, with latents returned.

Each has an engine of its own, which is asked as many questions as there are clients before the clock starts. Prints a table and
a JSON line with, for each, requests, tokens and latents a second (all that was generated, control tokens and latents among it),
tokens an answer, the median and the 95th percentile of the seconds to an answer; and ratios of tokens a second. Answers in text
are of another length than those with spans, and the shorter answers are, the more of the work is prompts: ``--ignore-eos``
makes all of them ``--max-tokens`` long. Environment as in recipes/quickstart.sh, without VLLM_ENABLE_V1_MULTIPROCESSING.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from future_l1_verl.data.prompts import as_sent, engine_prompt, vision_inputs
from future_l1_verl.decoding.client import chat_options
from future_l1_verl.decoding.vllm import engine_arguments, require_live_async
from future_l1_verl.evaluation import tasks
from future_l1_verl.evaluation.prompting import Prompt, Style, prompt
from future_l1_verl.latents.tokens import LatentSettings

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from vllm_server import serving

STYLE = Style("latent", None, "frames", spans=True)
Ask = Callable[[int], Awaitable[list[int]]]  # number of a question to the token ids of its answer

SERVED = {
    "latents": ((), {}),
    "returned": ((), chat_options(return_latents=True)),
    "text": (("--additional-config", '{"latent": {"spans": false}}'), {}),
}


@asynccontextmanager
async def served(args: argparse.Namespace, prompts: list[Prompt], flags: tuple[str, ...], extra: dict[str, Any]):
    from transformers import AutoProcessor

    patch_size = AutoProcessor.from_pretrained(args.model).image_processor.patch_size
    sampling = {"max_tokens": args.max_tokens, "temperature": 0.0, "ignore_eos": args.ignore_eos, "return_token_ids": True}
    bodies = []
    for shown in prompts:
        sized = iter(vision_inputs(shown.chat, patch_size)[0] or [])
        messages = [as_sent(message, lambda _: next(sized)) for message in shown.chat]  # noqa: B023  used at once
        bodies.append(json.dumps({"model": str(args.model), "messages": messages} | sampling | extra).encode())

    with serving(str(args.model), *shlex.split(args.flags), *flags) as url:
        connector, timeout = aiohttp.TCPConnector(limit=args.clients), aiohttp.ClientTimeout(600)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

            async def ask(number: int) -> list[int]:
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/chat/completions", data=bodies[number], headers=headers) as response:
                    reply = await response.json()
                    assert response.status == 200, reply
                    return reply["choices"][0]["token_ids"]

            yield ask


@asynccontextmanager
async def without_http(args: argparse.Namespace, prompts: list[Prompt]):
    from transformers import AutoProcessor
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    processor = AutoProcessor.from_pretrained(args.model)
    params = SamplingParams(
        max_tokens=args.max_tokens, temperature=0.0, ignore_eos=args.ignore_eos, output_kind=RequestOutputKind.FINAL_ONLY
    )
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parsed = parser.parse_args(["--model", str(args.model), *shlex.split(args.flags)])
    for name, value in engine_arguments(str(args.model)).items():
        setattr(parsed, name, value)
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(parsed))

    async def ask(number: int) -> list[int]:
        async for output in engine.generate(engine_prompt(processor, prompts[number].chat), params, request_id=str(number)):
            last = output
        return list(last.outputs[0].token_ids)

    try:
        await require_live_async(engine)
        yield ask
    finally:
        engine.shutdown()


async def measure(ask: Ask, count: int, clients: int, latent: int) -> dict[str, float]:
    """Asks all ``count`` questions; the first ``clients`` of them are not measured."""
    await asyncio.gather(*(ask(number) for number in range(clients)))
    numbers, latencies, tokens, latents = iter(tqdm(range(clients, count), leave=False)), [], 0, 0

    async def client() -> None:
        nonlocal tokens, latents
        for number in numbers:
            asked = time.perf_counter()
            ids = await ask(number)
            latencies.append(time.perf_counter() - asked)
            tokens, latents = tokens + len(ids), latents + ids.count(latent)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - started
    return {
        "requests_per_s": len(latencies) / seconds,
        "tokens_per_s": tokens / seconds,
        "latents_per_s": latents / seconds,
        "tokens_per_answer": tokens / len(latencies),
        "latency_p50_s": float(np.quantile(latencies, 0.5)),
        "latency_p95_s": float(np.quantile(latencies, 0.95)),
    }


async def run(args: argparse.Namespace, prompts: list[Prompt]) -> dict[str, dict[str, float]]:
    latent = LatentSettings.from_checkpoint(args.model).tokens.latent
    found = {}
    for name, (flags, extra) in SERVED.items():
        async with served(args, prompts, flags, extra) as ask:
            found[name] = await measure(ask, len(prompts), args.clients, latent)
    async with without_http(args, prompts) as ask:
        found["AsyncLLM"] = await measure(ask, len(prompts), args.clients, latent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, help="only the first; default: all")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--flags", default="--dtype float32 --max-model-len 1024 --enforce-eager", help="of vllm serve")
    args = parser.parse_args()
    questions, _ = tasks.read(tasks.TASKS["rl"], [args.data], None, args.questions)
    if len(questions) < 2 * args.clients:
        parser.error(f"{len(questions)} questions are too few for {args.clients} clients; at least twice as many are needed")
    prompts = [prompt(question, STYLE, 16) for question in tqdm(questions, desc="frames", leave=False)]
    found = asyncio.run(run(args, prompts))

    names = list(next(iter(found.values())))
    table = Table("", *(name.replace("_per_s", "/s").replace("_", " ") for name in names))
    for mode, values in found.items():
        table.add_row(mode, *(f"{values[name]:.2f}" for name in names))
    Console(width=128).print(table)
    rate = {mode: values["tokens_per_s"] for mode, values in found.items()}
    ratios = {
        "latents_to_text": rate["latents"] / rate["text"],
        "returned_to_latents": rate["returned"] / rate["latents"],
        "returned_to_AsyncLLM": rate["returned"] / rate["AsyncLLM"],
    }
    measured = len(prompts) - args.clients
    print(json.dumps({"clients": args.clients, "measured": measured, "ignore_eos": args.ignore_eos, **found, "ratios": ratios}))


if __name__ == "__main__":
    main()
