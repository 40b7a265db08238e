"""Spans over two ranks, each with a store of its own: preemption, aborts, steps without tokens."""

from __future__ import annotations

import asyncio

import pytest
from decoding_harness import CRAMPED, PARITY, Oracle, blocking, engine
from engine_processes import ask, running, settled
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs

pytestmark = pytest.mark.engine


def params(oracle: Oracle, **changed: int) -> SamplingParams:
    return SamplingParams(temperature=1.0, ignore_eos=True, logprobs=0, logit_bias=oracle.bias, **changed)


def test_tensor_parallel_two(
    tiny_checkpoint: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # vLLM would bind each rank to a NUMA node of its own.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    prompts = oracle.prompts()

    async def scenario() -> None:
        two = dict(tensor_parallel_size=2, distributed_executor_backend="mp", worker_extension_cls="async_worker.AsyncWorker")
        async with running(AsyncEngineArgs(**engine(tiny_checkpoint, **two, **CRAMPED)), capfd) as llm:
            sampling = params(oracle, n=2, max_tokens=96)
            outputs = await asyncio.gather(*(ask(llm, f"t{k}", prompt, sampling) for k, prompt in enumerate(prompts * 2)))
            agreement = oracle.compare(outputs, prompts * 2)
            first, second = await settled(llm)
            print(agreement, first)
            assert agreement.worst <= PARITY
            assert agreement.slots > 300
            assert first["reinjected"] >= 20, "preemptions happen on both ranks"
            assert first == second and first["digest"] != 0 and first["entries"] == 0

            cut = await asyncio.gather(
                *(ask(llm, f"a{k}", prompt, params(oracle, max_tokens=90), 20 + k) for k, prompt in enumerate(prompts))
            )
            assert [output.outputs[0].finish_reason for output in cut] == ["abort"] * len(prompts)
            assert oracle.compare(cut, prompts).worst <= PARITY

            # Two requests that block each other (`blocking`): both must be under way at once, which a try may miss.
            asked, samplings = blocking(oracle, (6, 8))
            for attempt in range(10):
                pair = zip(asked, samplings, strict=True)
                outputs = await asyncio.gather(*(ask(llm, f"{attempt} {k}", *each) for k, each in enumerate(pair)))
                assert oracle.compare(outputs, asked, max_latents=40, min_latents=40).worst <= PARITY
                first, second = await llm.collective_rpc("steps_without_tokens")
                if first:
                    break
            assert first == second > 0

    asyncio.run(scenario())
