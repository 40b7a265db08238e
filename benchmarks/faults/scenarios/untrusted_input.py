"""Requests to ``vllm serve`` that nobody who means well sends."""

from __future__ import annotations

import base64
import json
import pickle
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from answers import tiny_model
from decoding_harness import Oracle
from outcome import Outcome
from test_untrusted import DEEP, UNREADABLE, Payload, not_latents
from vllm_server import SMALL, serving

from future_l1_verl.toy.tiny import HIDDEN_SIZE

DONE = "97 kinds of bad requests to a server: no arrays, wrong or huge sizes, NaN, pickles, deep or huge JSON, wrong types"
UNIT = "requests"
JSON = {"content-type": "application/json", "connection": "close"}
LENGTH = 512  # max_model_len
GROWTH = 200 << 20  # bytes of memory that all processes of the server may take beyond those after the first run
HUGE = 32 << 20  # letters
REASON = 2000  # letters of a reply, at most


def png(width: int, height: int) -> bytes:
    """A picture that claims to be large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def picture(content: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def kinds(oracle: Oracle, marker: Path) -> dict[str, str]:
    """Bodies of requests, by what is the matter with them."""
    tokens = oracle.settings.tokens
    pickled = pickle.dumps(Payload(marker))
    arrays = not_latents(HIDDEN_SIZE, LENGTH) | {
        "a payload": f"{len(pickled) // 4}x1:{base64.b64encode(pickled).decode()}",
        "huge": f"1x{HIDDEN_SIZE}:{'A' * HUGE}",
    }
    options: dict[str, Any] = {f"{name} as prompt_latents": json.dumps({"prompt_latents": it}) for name, it in arrays.items()}
    options |= {f"{name} given": json.dumps({"intervene": "given", "given": it}) for name, it in arrays.items()}
    options |= {f"options {number}": it for number, it in enumerate(UNREADABLE)}
    options |= {"a number": 5, "a list": ["max_latents", "5"], "null": "null", "nested": {"max_latents": 5}}
    options |= {
        json.dumps(it): json.dumps(it)
        for it in (
            {"max_latents": 0}, {"max_latents": -3}, {"max_latents": 2.5}, {"max_latents": 2**40}, {"min_latents": 99},
            {"min_latents": True}, {"seed": "x"}, {"seed": 2**64}, {"seed": None, "sigma": 1}, {"sigma": float("nan")},
            {"sigma": float("inf")}, {"sigma": 1e300, "seed": 1}, {"sigma": -1, "seed": 1}, {"sigma": "1"}, {"budget": 4},
            {"intervene": "__import__"}, {"intervene": "given"}, {"spans": False}, {"given": "1x1:AAAA"},
        )
    }  # fmt: skip
    changed: dict[str, dict[str, Any]] = {name: {"vllm_xargs": {"latent": it}} for name, it in options.items()}
    changed |= {
        "return_latents": {"vllm_xargs": {"return_latents": "yes"}},
        "xargs a list": {"vllm_xargs": [1, 2]},
        "xargs a text": {"vllm_xargs": "{}"},
        "slots without latents": {"messages": [{"role": "user", "content": "<|latent_start|><|latent|>"}]},
        "a grammar": {"structured_outputs": {"regex": "a"}},
        "log-probs of all": {"logprobs": True, "top_logprobs": -1},
        "top_logprobs": {"logprobs": True, "top_logprobs": 10**6},
        "logit_bias": {"logit_bias": {"x": 1}},
        "logit_bias beyond": {"logit_bias": {str(2**31): 1}},
        "max_tokens": {"max_tokens": -5},
        "max_tokens huge": {"max_tokens": 10**12},
        "n": {"n": -1},
        "temperature": {"temperature": float("nan")},
        "temperature a text": {"temperature": "hot"},
        "seed": {"seed": 2**80},
        "nobody's token": {"allowed_token_ids": [2**31]},
        "no message": {"messages": 5},
        "a pickle for a picture": picture(pickled),
        "a huge picture": picture(png(2**30, 2**30)),
        "too long": {"messages": [{"role": "user", "content": "ball " * 100_000}]},
    }
    base = ordinary(oracle)
    bodies = {name: json.dumps(base | it) for name, it in changed.items()}
    return bodies | {"only slots": json.dumps(base | {"allowed_token_ids": [tokens.latent]}), "deep": DEEP, "no JSON": "{"}


def ordinary(oracle: Oracle) -> dict[str, Any]:
    return {
        "model": oracle.model.name_or_path,
        "messages": [{"role": "user", "content": "what happens next?"}],
        "max_tokens": 24,
        "temperature": 0,
        "logit_bias": {str(token): value for token, value in oracle.bias.items()},
        "return_token_ids": True,
        "ignore_eos": True,
    }


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    oracle, marker = tiny_model(work), work / "unpickled"
    marker.unlink(missing_ok=True)
    bodies = kinds(oracle, marker)
    with serving(oracle.model.name_or_path, *SMALL) as url, httpx.Client(base_url=url, timeout=120) as client:
        answer = said(client, oracle)
        first: list[int] = []

        def once(number: int) -> Outcome:
            began, lost, wrong = time.monotonic(), 0, 0
            for name in random.sample(sorted(bodies), len(bodies)):
                try:
                    reply = client.post("/chat/completions", content=bodies[name].encode(), headers=JSON)
                except httpx.TransportError as error:
                    print(f"{name}: {error!r}", flush=True)
                    lost += 1
                    continue
                if reply.status_code != 400 or not 10 < len(reply.text) < REASON:
                    print(f"{name}: {reply.status_code} {reply.text[-900:]}", flush=True)
                    wrong += 1
            wrong += said(client, oracle) != answer
            first.append(memory())
            grown = first[-1] - first[0]
            print(f"memory grew by {grown >> 20} MiB")
            wrong += marker.exists() or grown > GROWTH
            return Outcome(len(bodies) + 1, lost, wrong, time.monotonic() - began, "refused with status 400 and a reason")

        yield once


def said(client: httpx.Client, oracle: Oracle) -> list[int]:
    return client.post("/chat/completions", json=ordinary(oracle)).json()["choices"][0]["token_ids"]


def memory() -> int:
    """Bytes that the server's processes have."""
    return sum(process.memory_info().rss for process in psutil.Process().children(recursive=True))
