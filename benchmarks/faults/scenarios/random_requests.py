"""Requests with random options to ``vllm serve``, all at once, some of them given up; each again alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import torch
from answers import PATIENCE, random_options, tiny_model
from decoding_harness import PARITY, Oracle
from outcome import Outcome
from vllm_server import SMALL, serving

from future_l1_verl.decoding.client import chat_options, choice_latents
from future_l1_verl.latents.interventions import KINDS, Intervention
from future_l1_verl.toy.tiny import HIDDEN_SIZE

DONE = "50 requests at once to a server short of memory, with random options of latents, some given up; each again alone"
UNIT = "requests"
REQUESTS, GIVEN_UP = 50, 0.2
# Prompts whole, as for every engine of ours on a CPU; memory for about six of sixteen answers.
FLAGS = (*SMALL, "--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192", "--num-gpu-blocks-override", "80")


@dataclass(frozen=True)
class Request:
    path: str
    body: dict[str, Any]
    given_up: float | None  # after so many seconds


def random_request(oracle: Oracle, draw: Random, greedy: bool) -> Request:
    options: dict[str, Any] = random_options(draw) | {"return_latents": draw.random() < 0.7}
    tokens = oracle.settings.tokens
    prompt = [draw.randrange(20, 320) for _ in range(draw.randint(4, 200))]
    if draw.random() < 0.3:
        slots = draw.randint(0, 5)
        options["prompt_latents"] = vectors(draw, slots)
        prompt += [tokens.start] + [tokens.latent] * slots + draw.choice(([], [tokens.end, 30, 31] if slots else []))
    if draw.random() < 0.3:
        kind = draw.choice(KINDS)
        options["intervention"] = Intervention(kind, vectors(draw, 3) if kind == "given" else None, seed=draw.randrange(1000))
    body = {
        "model": oracle.model.name_or_path,
        "max_tokens": draw.randint(8, 96),
        "temperature": 0.0 if greedy else draw.choice((0.7, 1.0, 1.3)),
        "seed": draw.randrange(2**31),
        "n": 1 if greedy else draw.choice((1, 1, 2, 3)),
        "ignore_eos": True,
        "return_token_ids": True,
        "logit_bias": {str(token): value for token, value in oracle.bias.items()},
    } | chat_options(**options)
    given_up = draw.uniform(0, 1.5) if draw.random() < GIVEN_UP else None
    if "prompt_latents" not in options and draw.random() < 0.3:
        messages = [{"role": "user", "content": oracle.processor.tokenizer.decode(prompt)}]
        return Request("/chat/completions", body | {"messages": messages, "logprobs": True}, given_up)
    return Request("/completions", body | {"prompt": prompt, "logprobs": 0}, given_up)


def vectors(draw: Random, rows: int) -> torch.Tensor:
    return torch.randn(rows, HIDDEN_SIZE, generator=torch.Generator().manual_seed(draw.randrange(2**31)))


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    oracle = tiny_model(work)
    with serving(oracle.model.name_or_path, *FLAGS) as url:
        yield lambda number: asyncio.run(asked(url, oracle, Random(number)))


async def asked(url: str, oracle: Oracle, draw: Random) -> Outcome:
    # Not mixed: beside a greedy request vLLM draws all others without their seeds, on a CPU (TopKTopPSampler.forward_cpu).
    greedy = draw.random() < 0.3
    requests = [random_request(oracle, draw, greedy) for _ in range(REQUESTS)]
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=REQUESTS)) as client:
        together = await asyncio.gather(*(answer(client, request, request.given_up) for request in requests))
        seconds = time.monotonic() - began
        lost = wrong = 0
        for request, reply in zip(requests, together, strict=True):
            if request.given_up is None:
                lost += reply is None
                wrong += reply is not None and not same(reply, await answer(client, request, None))
        left = await running(client)
    after = "answered as alone, nothing left of those given up" if not left else "requests left behind"
    return Outcome(REQUESTS, lost, wrong, seconds, after)


async def answer(client: httpx.AsyncClient, request: Request, given_up: float | None) -> list[dict[str, Any]] | None:
    """The choices; None if there are none, or if they take longer than ``given_up`` seconds: the connection is closed then."""
    try:
        async with asyncio.timeout(given_up):
            reply = await client.post(request.path, json=request.body)
    except (TimeoutError, httpx.TransportError):
        return None
    if reply.status_code != 200:
        print(f"{reply.status_code} {reply.text[:300]} {json.dumps(request.body)[:300]}", flush=True)
        return None
    return reply.json()["choices"]


def same(choices: list[dict[str, Any]], alone: list[dict[str, Any]] | None) -> bool:
    """Whether the tokens are, and log-probs and latents but for rounding."""
    return alone is not None and all(
        one["token_ids"] == other["token_ids"]
        and close(logprobs(one), logprobs(other))
        and close(choice_latents(one), choice_latents(other))
        for one, other in zip(*(sorted(each, key=lambda choice: choice["index"]) for each in (choices, alone)), strict=True)
    )


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(((one - other).abs() <= PARITY).all())


def logprobs(choice: dict[str, Any]) -> torch.Tensor:
    found = choice["logprobs"]
    return torch.tensor(found["token_logprobs"] if "token_logprobs" in found else [it["logprob"] for it in found["content"]])


async def running(client: httpx.AsyncClient) -> float:
    """Requests that the server has, once it has had five seconds to forget those given up."""
    for _ in range(50):
        text = (await client.get(client.base_url.join("/metrics"))).text
        lines = [
            line for line in text.splitlines() if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting{"))
        ]
        if not (left := sum(float(line.split()[-1]) for line in lines)):
            return 0
        await asyncio.sleep(0.1)
    return left
