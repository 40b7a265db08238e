"""An engine as verl starts it: from command-line arguments, with verl's worker extension, in processes of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from async_worker import AsyncWorker
from decoding_harness import NEVER, PARITY, Oracle, engine
from engine_processes import ask, running, settled
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.utils.argparse_utils import FlexibleArgumentParser

from future_l1_verl.decoding.vllm import completion_latents, request_options
from future_l1_verl.latents.interventions import Intervention

utils = pytest.importorskip("verl.workers.rollout.vllm_rollout.utils", reason="this set of versions has no verl")
pytestmark = pytest.mark.engine

TEMPERATURE = 0.7


class VerlWorker(AsyncWorker, utils.vLLMColocateWorkerExtension):
    """verl's worker extension, for async scheduling."""


def as_verl_makes_it(arguments: dict[str, Any]) -> AsyncEngineArgs:
    model = arguments.pop("model")
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parsed = parser.parse_args(["--model", model, *utils.build_cli_args_from_config(arguments)])
    return AsyncEngineArgs.from_cli_args(parsed)


def params(oracle: Oracle, **changed: Any) -> SamplingParams:
    values = dict(max_tokens=40, temperature=TEMPERATURE, ignore_eos=True, logprobs=0, logit_bias=oracle.bias)
    return SamplingParams(**values | changed)


def test_as_verl_starts_it(tiny_checkpoint: str, oracle: Oracle, capfd: pytest.CaptureFixture[str]) -> None:
    """Processed log-probs, verl's worker extension and its mask of vision tokens."""
    vision = [token for token, value in oracle.bias.items() if value == NEVER]
    prompts = oracle.prompts()

    async def scenario() -> None:
        worker = f"{__name__}.{VerlWorker.__name__}"
        arguments = engine(tiny_checkpoint, worker_extension_cls=worker, logprobs_mode="processed_logprobs")
        async with running(as_verl_makes_it(arguments), capfd) as llm:
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
