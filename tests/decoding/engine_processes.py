"""AsyncLLM with the engine in processes of its own, scheduling asynchronously as on a GPU."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from async_on_cpu import asynchronously
from decoding_harness import Prompt
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from future_l1_verl.decoding.vllm import require_live_async


@asynccontextmanager
async def running(arguments: AsyncEngineArgs, output: pytest.CaptureFixture[str]) -> AsyncIterator[AsyncLLM]:
    """An engine that schedules asynchronously; its processes are gone afterwards.

    Raises AssertionError with the errors that stand in ``output``, where an engine says what it died of, if it dies.
    """
    before = set(psutil.Process().children(recursive=True))
    with asynchronously():
        llm = AsyncLLM.from_engine_args(arguments)
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


async def ask(
    llm: AsyncLLM, name: str, prompt: Prompt, sampling: SamplingParams, abort_after: int | None = None
) -> RequestOutput:
    outputs = []
    async for output in llm.generate(prompt.for_vllm, sampling, request_id=name):
        outputs.append(output)
        if abort_after is not None and len(output.outputs[0].token_ids) >= abort_after:
            await llm.abort(name)
            abort_after = None
    return outputs[-1]


async def settled(llm: AsyncLLM) -> list[dict[str, Any]]:
    """Status of the workers once they have been told of every finished request."""
    for _ in range(100):
        statuses = await require_live_async(llm)
        if all(status["requests"] == 0 for status in statuses):
            break
        await asyncio.sleep(0.1)
    return statuses
