"""What a step of the engine does on its device, operation by operation, where no row is in a span: what vLLM does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from async_on_cpu import asynchronously
from decoding_harness import NEVER, Oracle, in_process, runner_of, without_keys
from torch.utils._python_dispatch import TorchDispatchMode
from vllm import SamplingParams

from future_l1_verl.latents.tokens import CONFIG_KEYS

pytestmark = pytest.mark.engine

Steps = list[Counter[str]]


class Counted(TorchDispatchMode):
    """Counts the operations that reach a device. A product with a bias counts as one without."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[str(function).replace("addmm", "mm")] += 1
        return function(*args, **kwargs or {})


def steps(llm: Any, oracle: Oracle, **bias: float) -> Steps:
    """The operations of each step of two answers, prefill and changes of the batch included."""
    runner, found = runner_of(llm), []
    tokens = oracle.settings.tokens

    def counting(name: str) -> None:
        method = getattr(type(runner), name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with Counted() as mode:
                output = method(runner, *args, **kwargs)
            found.append(mode.operations)
            return output

        patch.setattr(runner, name, counted, raising=False)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("execute_model", "sample_tokens"):
            counting(name)
        sampling = [
            SamplingParams(
                max_tokens=wanted, temperature=0.9, top_p=0.99, seed=1, ignore_eos=True, logprobs=0,
                logit_bias={tokens.latent: NEVER, tokens.start: NEVER} | {getattr(tokens, k): v for k, v in bias.items()},
            )
            for wanted in (6, 12)
        ]  # fmt: skip
        prompts = [prompt.for_vllm for prompt in oracle.prompts()[:2]]
        llm.generate(prompts, sampling, use_tqdm=False)
        llm.generate(prompts, sampling, use_tqdm=False)
    return found[len(found) // 2 :]  # of the second time: with prompts in the cache


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> Iterator[bool]:
    if not request.param:
        yield False
        return
    with asynchronously():
        yield True


@pytest.fixture(scope="module")
def stock(asynchronous: bool, tiny_checkpoint: str, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    checkpoint = without_keys(tiny_checkpoint, tmp_path_factory.mktemp("stock") / "plain", *CONFIG_KEYS)
    plain = dict(worker_cls="auto", scheduler_cls=None, additional_config={})
    with in_process(tiny_checkpoint, model=checkpoint, logprobs_mode="processed_logprobs", **plain) as llm:
        return steps(llm, oracle)


def test_an_engine_without_spans_does_what_vllm_does(stock: Steps, tiny_checkpoint: str, oracle: Oracle) -> None:
    with in_process(tiny_checkpoint, {"spans": False}, logprobs_mode="processed_logprobs") as llm:
        found = steps(llm, oracle)
    assert sum(sum(step.values()) for step in stock) > 1000
    assert found == stock


def test_a_step_without_a_row_in_a_span_does_what_vllm_does(
    asynchronous: bool, stock: Steps, tiny_checkpoint: str, oracle: Oracle
) -> None:
    """With async scheduling the host does not know yet whether the step before opened a span."""
    with in_process(tiny_checkpoint, logprobs_mode="processed_logprobs") as llm:
        found, spans = steps(llm, oracle), steps(llm, oracle, start=5.0)
    assert (found == stock) is not asynchronous
    assert sum(sum(step.values()) for step in spans) > sum(sum(step.values()) for step in stock), "it can be told"
