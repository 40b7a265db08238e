"""``python benchmarks/transport.py [--step-seconds S | --run DIR]``: the cost of bringing latents from the engine to the actor.

Follows the latents of one step of stage 2, ``--answers`` answers with ``--latents`` of width ``--hidden`` each, hop by hop,
with the code and the encodings that a run uses:

* ``worker``: device to host, into the store and onto the step's output (one step of the engine: a latent an answer);
* ``scheduler``: from the scheduler to vLLM's front end (msgpack, both ways), less the same outputs without latents;
* ``front end``: an answer's latents concatenated and made a tensor;
* ``agent loop``: from the server's process to the agent loop's (Ray), less an answer without latents, and the checksum;
* ``put``, ``get``: into TransferQueue, answer by answer, and out of it as a batch; less the same without latents;
* ``actor``: checksum compared, and rows gathered.

Prints a table and a JSON line: microseconds a latent (difference of the fastest of ``--rounds`` rounds each, which a busy
machine disturbs least; below 0 where a hop costs less than the noise), bytes a latent, copies from device to host; the
total of a step; and its share of a step of ``S`` seconds, or of the median step of a run (a tensorboard folder).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
import torch
import transfer_queue as tq
from rich.console import Console
from rich.table import Table
from rl_step import phases
from tensordict import TensorDict
from timing import alternate
from torch import Tensor

from future_l1_verl.decoding.vllm import completion_latents
from future_l1_verl.decoding.vllm.wire import from_array, to_array
from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentTokens

TOKENS = LatentTokens(14, 15, 16)
OTHERS = 100  # tokens of an answer besides its latents


@dataclass
class Hop:
    """``way`` takes all latents of the step; ``without`` does the same where there are none. ``sent``: bytes, all latents."""

    way: Callable[[], object]
    without: Callable[[], object] = lambda: None
    sent: int = 0


def worker(latents: list[Tensor], device: str) -> Callable[[], object]:
    from vllm.v1.outputs import ModelRunnerOutput

    from future_l1_verl.decoding.vllm.settings import EngineSettings, SpanOptions
    from future_l1_verl.decoding.vllm.store import RequestLatents, Step
    from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder

    answers, each, hidden = len(latents), len(latents[0]), latents[0].shape[1]
    options = SpanOptions(each, return_latents=True)
    decoder = SpanDecoder(EngineSettings(TOKENS, options, hidden, 4096, False), torch.device(device))
    names = [str(number) for number in range(answers)]
    states = [torch.stack(step).to(device) for step in zip(*latents, strict=True)]
    nothing, state = torch.zeros(answers, dtype=torch.bool), torch.zeros(answers, dtype=torch.int32, device=device)
    output = ModelRunnerOutput(names, {name: i for i, name in enumerate(names)}, [[TOKENS.latent]] * answers)

    def steps() -> None:
        decoder.store.requests = {name: RequestLatents(options) for name in names}
        for position, state_of_all in enumerate(states):
            positions = torch.full((answers,), position).numpy()
            decoder._step = Step(names, positions, nothing.numpy(), state, state == 0, state_of_all)
            decoder.finish(output)

    return steps


def scheduler(latents: list[Tensor], carried: bool) -> Callable[[], int]:
    """Returns the bytes of all messages, one a step of the engine."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    encoder, decoder = MsgpackEncoder(), MsgpackDecoder(EngineCoreOutputs)
    steps = [[to_array(latent[None]) if carried else None for latent in step] for step in zip(*latents, strict=True)]

    def messages() -> int:
        sent = 0
        for step in steps:
            outputs = [
                EngineCoreOutput(request_id=str(i), new_token_ids=[TOKENS.latent], routed_experts=array)
                for i, array in enumerate(step)
            ]
            buffers = encoder.encode(EngineCoreOutputs(outputs=outputs))
            decoder.decode(buffers)
            sent += sum(memoryview(buffer).nbytes for buffer in buffers)
        return sent

    return messages


def front_end(latents: list[Tensor]) -> Callable[[], object]:
    import numpy as np

    chunks = [[to_array(latent[None]) for latent in answer] for answer in latents]

    def concatenated() -> None:
        for answer in chunks:
            completion_latents(SimpleNamespace(index=0, finish_reason="stop", routed_experts=np.concatenate(answer)))

    return concatenated


@ray.remote(num_cpus=0)
class Server:
    """Answers as the rollout's server does: what crosses is pickled by Ray."""

    def __init__(self, latents: list[Tensor]) -> None:
        self.latents = latents

    def answer(self, number: int, carried: bool) -> dict[str, Any]:
        ids = list(range(OTHERS))
        return {"token_ids": ids, "log_probs": [0.0] * OTHERS, "latents": to_array(self.latents[number]) if carried else None}


def agent_loop(server: Any, answers: int, carried: bool) -> None:
    for found in ray.get([server.answer.remote(number, carried) for number in range(answers)]):
        if carried:
            checksum(from_array(found["latents"]))


def put(latents: list[Tensor], carried: bool) -> None:
    text = torch.zeros(1, OTHERS, dtype=torch.int64)
    for number, answer in enumerate(latents):
        fields = {"responses": text, "response_mask": text}
        if carried:
            fields |= {"latents": answer[None], "latents_checksum": torch.tensor([[0]])}
        partition = "latents" if carried else "text"
        tq.kv_batch_put(keys=[str(number)], partition_id=partition, fields=TensorDict(fields, batch_size=1), tags=[{}])


def get(answers: int, carried: bool) -> TensorDict:
    names = ["responses", "response_mask", *(["latents", "latents_checksum"] if carried else [])]
    keys = [str(number) for number in range(answers)]
    return tq.kv_batch_get(keys=keys, partition_id="latents" if carried else "text", select_fields=names)


def actor(latents: list[Tensor]) -> Callable[[], object]:
    from future_l1_verl.training.engine import _require_unchanged, _rows_of_slots

    ragged = torch.nested.as_nested_tensor(latents, layout=torch.jagged)
    ids = torch.nested.as_nested_tensor([torch.full((len(answer),), TOKENS.latent) for answer in latents], layout=torch.jagged)
    sums = torch.tensor([[checksum(answer)] for answer in latents])
    batch = TensorDict({"latents": ragged, "input_ids": ids, "latents_checksum": sums}, batch_size=len(latents))

    def taken() -> None:
        _require_unchanged(batch)
        _rows_of_slots(batch, "latents", [int((row == TOKENS.latent).sum()) for row in ids.unbind()])

    return taken


def hops(latents: list[Tensor], device: str) -> dict[str, Hop]:
    answers, size = len(latents), sum(answer.nbytes for answer in latents)
    server = Server.remote(latents)
    with_latents, without = (scheduler(latents, carried) for carried in (True, False))
    return {
        "worker": Hop(worker(latents, device), sent=size),
        "scheduler": Hop(with_latents, without, with_latents() - without()),
        "front end": Hop(front_end(latents), sent=size),
        "agent loop": Hop(partial(agent_loop, server, answers, True), partial(agent_loop, server, answers, False), size),
        "put": Hop(partial(put, latents, True), partial(put, latents, False), size),
        "get": Hop(partial(get, answers, True), partial(get, answers, False), size),
        "actor": Hop(actor(latents), sent=size),
    }


def seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def copies_to_host(way: Callable[[], object]) -> int:
    stock, count = torch.Tensor.cpu, 0

    def counted(tensor: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return stock(tensor)

    with mock.patch.object(torch.Tensor, "cpu", counted):
        way()
    return count


def measure(args: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    dtype, device = getattr(torch, args.dtype), "cuda" if torch.cuda.is_available() else "cpu"
    shape = (args.answers, args.latents, args.hidden)
    latents = [answer.clone() for answer in torch.randn(shape, generator=generator).to(dtype)]  # pickled each by itself
    total, found = args.answers * args.latents, {}
    for name, hop in hops(latents, device).items():
        ways = {"with": partial(seconds, hop.way), "without": partial(seconds, hop.without)}
        times = alternate(ways, args.rounds)
        extra = min(times["with"]) - min(times["without"])
        found[name] = {"us_per_latent": 1e6 * extra / total, "bytes_per_latent": hop.sent / total}
    copies = copies_to_host(worker(latents, device))
    assert all(torch.equal(a, b) for a, b in zip(get(args.answers, True)["latents"].unbind(), latents, strict=True))
    return {"hops": found, "latents": total, "copies_to_host": copies, "engine_steps": args.latents}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--step-seconds", type=float)
    step.add_argument("--run", type=Path)
    parser.add_argument("--answers", type=int, default=128)
    parser.add_argument("--latents", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    # TransferQueue's actors ask for a few CPUs.
    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init()
    try:
        found = measure(args)
    finally:
        tq.close()
        ray.shutdown()
    us = sum(hop["us_per_latent"] for hop in found["hops"].values())
    table = Table("", "us a latent", "bytes a latent", title=f"{found['latents']} latents of width {args.hidden}")
    for name, hop in found["hops"].items():
        table.add_row(name, f"{hop['us_per_latent']:.1f}", f"{hop['bytes_per_latent']:.0f}")
    table.add_row("all", f"{us:.1f}", "")
    Console(width=128).print(table)
    print(f"{found['copies_to_host']} copies to the host in {found['engine_steps']} steps of the engine")
    found |= {"us_per_latent": us, "ms_per_step": us * found["latents"] / 1e3}
    if step_seconds := phases(args.run)["step"] if args.run else args.step_seconds:
        found |= {"step_seconds": step_seconds, "share_of_step": found["ms_per_step"] / 1e3 / step_seconds}
        print(f"{found['ms_per_step']:.1f} ms a step, {found['share_of_step']:.2%} of its {step_seconds:.1f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
