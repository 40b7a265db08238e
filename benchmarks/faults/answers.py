"""Answers of an engine in this process, each compared with the plain model; nothing is waited for longer than `PATIENCE`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from async_on_cpu import asynchronously
from decoding_harness import PARITY, Oracle, Prompt, in_process
from vllm import SamplingParams

from future_l1_verl.decoding.vllm import request_options
from future_l1_verl.latents.noise import standard_normal
from future_l1_verl.toy import tiny

PATIENCE = 120  # seconds until an answer counts as lost


@dataclass(frozen=True)
class Asked:
    prompt: Prompt
    max_tokens: int
    temperature: float = 1.0
    n: int = 1
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # max_latents, min_latents, sigma

    def sampling(self, bias: dict[int, float]) -> SamplingParams:
        """The seed is of the noise alone: prompts are cut here, which vLLM cannot do to a seeded request on a CPU (see
        `future_l1_verl.platform.vllm_engine`)."""
        return SamplingParams(
            max_tokens=self.max_tokens, temperature=self.temperature, n=self.n, ignore_eos=True, logprobs=0, logit_bias=bias,
            extra_args=request_options(seed=self.seed, **self.options),
        )  # fmt: skip

    def noise(self, _request: int, _completion: int, positions: torch.Tensor) -> torch.Tensor:
        """Returns the noise ``[S, H]`` that was added to the latents at the absolute positions ``[S]``."""
        drawn = standard_normal(torch.full_like(positions, self.seed), positions, tiny.HIDDEN_SIZE)
        return self.options.get("sigma", 0.0) * drawn


def random_request(draw: Random, prompts: Sequence[Prompt], max_tokens: int) -> Asked:
    temperature, n = draw.choice((0.7, 1.0, 1.3)), draw.choice((1, 1, 2))
    return Asked(draw.choice(prompts), max_tokens, temperature, n, draw.randrange(2**31), random_options(draw))


def random_options(draw: Random) -> dict[str, Any]:
    most = draw.randint(1, 12)
    return {"max_latents": most, "min_latents": draw.randint(1, most), "sigma": draw.choice((0.0, 0.0, 0.3))}


def tiny_model(work: Path) -> Oracle:
    if not (work / "model").exists():
        tiny.build(work / "model", seed=0, max_latents=6)
    return Oracle(str(work / "model"))


@contextmanager
def running(oracle: Oracle, asynchronous: bool, **arguments: Any) -> Iterator[Any]:
    """An LLM in this process."""
    with asynchronously() if asynchronous else nullcontext(), in_process(oracle.model.name_or_path, **arguments) as llm:
        yield llm


def failures(llm: Any, oracle: Oracle, asked: Sequence[Asked], bias: dict[int, float] | None = None) -> tuple[int, int]:
    """How many of the answers do not come, and how many are not the oracle's. Spans open often unless ``bias`` says else."""
    samplings = [each.sampling(bias or oracle.bias) for each in asked]
    try:
        with patience():
            outputs = llm.generate([each.prompt.for_vllm for each in asked], samplings, use_tqdm=False)
    except TimeoutError:
        return sum(each.n for each in asked), 0
    lost = wrong = 0
    for each, output in zip(asked, outputs, strict=True):
        whole = [each.max_tokens == len(completion.token_ids) for completion in output.outputs]
        lost += each.n - sum(whole)
        wrong += sum(not right(oracle, each, output, index) for index in range(each.n) if whole[index])
    return lost, wrong


def right(oracle: Oracle, asked: Asked, output: Any, index: int) -> bool:
    alone = SimpleNamespace(prompt_token_ids=output.prompt_token_ids, outputs=[output.outputs[index]])
    limits = {name: asked.options[name] for name in ("max_latents", "min_latents") if name in asked.options}
    try:
        agreement = oracle.compare([alone], [asked.prompt], noise=asked.noise, **limits)
    except (AssertionError, ValueError):  # not well formed, or not a latent for each slot
        return False
    return agreement.worst <= PARITY


@contextmanager
def patience() -> Iterator[None]:
    """Raises TimeoutError in a block that takes longer than `PATIENCE`."""

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
