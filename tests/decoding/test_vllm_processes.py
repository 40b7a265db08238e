"""AsyncLLM with the engine in its own processes: as verl starts it, and tensor parallel over two ranks. Scheduling is
asynchronous, as on a GPU."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from async_on_cpu import asynchronously
from decoding_harness import CRAMPED, NEVER, PARITY, Oracle, Prompt, blocking, engine
from verl.workers.rollout.vllm_rollout.utils import build_cli_args_from_config
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import RequestOutput
from vllm.sampling_params import StructuredOutputsParams
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from future_l1_verl.decoding.vllm import completion_latents, request_options, require_live_async
from future_l1_verl.latents.interventions import Intervention

pytestmark = pytest.mark.timeout(300)

WORKER = "verl_worker.AsyncWorker"  # verl's, for async scheduling
TEMPERATURE = 0.7


@asynccontextmanager
async def running(arguments: dict[str, Any], output: pytest.CaptureFixture[str]) -> AsyncIterator[AsyncLLM]:
    """An engine made from command-line arguments, as verl makes it; its processes are gone afterwards.

    Raises AssertionError with the errors that stand in ``output``, where an engine says what it died of, if it dies.
    """
    model = arguments.pop("model")
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parsed = parser.parse_args(["--model", model, *build_cli_args_from_config(arguments)])
    before = set(psutil.Process().children(recursive=True))
    with asynchronously():
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(parsed))
    assert llm.vllm_config.scheduler_config.async_scheduling
    started = [
        process
        for process in psutil.Process().children(recursive=True)
        if process not in before and not any("resource_tracker" in word for word in process.cmdline())  # Python's own
    ]
    try:
        yield llm
    except EngineDeadError as death:
        # Of each traceback the places and the error; the first reason is the one, the step in flight then fails of another.
        said = re.findall(r"ERROR .*?\] *(File .*|\w+(?:Error|Exception)\b.*)", "".join(output.readouterr()))
        raise AssertionError("\n".join(said)) from death
    finally:
        llm.shutdown()
        _, alive = await asyncio.to_thread(psutil.wait_procs, started, 30)
        for process in alive:
            process.kill()
    assert not alive, "the engine's processes did not exit by themselves"


def params(oracle: Oracle, **changed: Any) -> SamplingParams:
    values = dict(max_tokens=40, temperature=TEMPERATURE, ignore_eos=True, logprobs=0, logit_bias=oracle.bias)
    return SamplingParams(**values | changed)


async def ask(
    llm: AsyncLLM, name: str, prompt: Prompt, sampling: SamplingParams, abort_after: int | None = None
) -> RequestOutput:
    last = None
    async for output in llm.generate(prompt.for_vllm, sampling, request_id=name):
        last = output
        if abort_after is not None and len(output.outputs[0].token_ids) >= abort_after:
            await llm.abort(name)
            abort_after = None
    assert last is not None
    return last


async def settled(llm: AsyncLLM) -> list[dict[str, Any]]:
    """Status of the workers once they have been told of every finished request."""
    for _ in range(100):
        statuses = await require_live_async(llm)
        if all(status["requests"] == 0 for status in statuses):
            break
        await asyncio.sleep(0.1)
    return statuses


def test_as_verl_starts_it(tiny_checkpoint: str, oracle: Oracle, capfd: pytest.CaptureFixture[str]) -> None:
    """Processed log-probs, verl's worker extension and its mask of vision tokens."""
    vision = [token for token, value in oracle.bias.items() if value == NEVER]
    prompts = oracle.prompts()

    async def scenario() -> None:
        arguments = engine(tiny_checkpoint, worker_extension_cls=WORKER, logprobs_mode="processed_logprobs")
        async with running(arguments, capfd) as llm:
            masks = {"vocab_size": len(oracle.processor.tokenizer), "banned_token_ids": vision}
            await llm.collective_rpc("monkey_patch_model", kwargs=masks)

            ordinary = [ask(llm, f"n{k}", prompt, params(oracle, n=2)) for k, prompt in enumerate(prompts)]
            # Twice as short as most, so that many end inside a span.
            short = [ask(llm, f"s{k}", prompt, params(oracle, max_tokens=3 + k)) for k, prompt in enumerate(prompts)]
            outputs = await asyncio.gather(*ordinary, *short)
            aborted = await asyncio.gather(
                *(ask(llm, f"a{k}", prompt, params(oracle, max_tokens=300), 30 + k) for k, prompt in enumerate(prompts))
            )
            with oracle.biased(oracle.bias):
                agreement = oracle.compare(outputs, prompts * 2, temperature=TEMPERATURE)
                cut = oracle.compare(aborted, prompts, temperature=TEMPERATURE)
            print(agreement, "aborted:", cut)
            assert agreement.worst <= PARITY
            assert agreement.slots > 100 and agreement.open_spans >= 1
            assert [output.outputs[0].finish_reason for output in aborted] == ["abort"] * len(prompts)
            assert cut.worst <= PARITY and cut.slots > 30

            # A request that cannot work is refused with the reason.
            refused = {
                "a grammar": params(oracle, structured_outputs=StructuredOutputsParams(regex="a+")),
                "not 3 and 2": params(oracle, extra_args=request_options(max_latents=2, min_latents=3)),
                "needs a seed": params(oracle, extra_args=request_options(sigma=0.5)),
                "async_scheduling=False": params(oracle, extra_args=request_options(intervention=Intervention("zero"))),
            }
            for reason, sampling in refused.items():
                with pytest.raises(ValueError, match=reason):
                    await ask(llm, "refused", prompts[0], sampling)

            # What gets past the front end fails alone.
            llm.input_processor.check_latents = None
            for k, sampling in enumerate(refused.values()):
                (completion,) = (await ask(llm, f"r{k}", prompts[0], sampling)).outputs
                assert (completion.finish_reason, list(completion.token_ids)) == ("error", [])
                assert len(completion_latents(completion)) == 0
            again = await ask(llm, "again", prompts[0], params(oracle))
            with oracle.biased(oracle.bias):
                assert oracle.compare([again], prompts[:1], temperature=TEMPERATURE).worst <= PARITY

            (status,) = await settled(llm)
            assert (status["requests"], status["entries"]) == (0, 0)

    asyncio.run(scenario())


def test_tensor_parallel_two(
    tiny_checkpoint: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # vLLM would bind each rank to a NUMA node of its own.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    prompts = oracle.prompts()

    async def scenario() -> None:
        arguments = engine(
            tiny_checkpoint, tensor_parallel_size=2, distributed_executor_backend="mp", worker_extension_cls=WORKER, **CRAMPED
        )  # fmt: skip
        async with running(arguments, capfd) as llm:
            sampling = params(oracle, temperature=1.0, n=2, max_tokens=96)
            outputs = await asyncio.gather(*(ask(llm, f"t{k}", prompt, sampling) for k, prompt in enumerate(prompts * 2)))
            agreement = oracle.compare(outputs, prompts * 2)
            first, second = await settled(llm)
            print(agreement, first)
            assert agreement.worst <= PARITY
            assert agreement.slots > 300
            assert first["reinjected"] >= 20, "preemptions happen on both ranks"
            assert first == second and first["digest"] != 0 and first["entries"] == 0

            cut = await asyncio.gather(
                *(
                    ask(llm, f"a{k}", prompt, params(oracle, temperature=1.0, max_tokens=90), 20 + k)
                    for k, prompt in enumerate(prompts)
                )
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
