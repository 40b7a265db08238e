"""vLLM engines, prompts and sampling that the benchmarks of decoding share."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from future_l1_verl.decoding.vllm import engine_arguments, require_live
from future_l1_verl.latents.tokens import CONFIG_KEYS, LatentTokens
from future_l1_verl.platform.vllm_engine import engine_defaults

PROMPT = 32  # tokens
WORDS = range(20, 400)  # ids that are text in the tokenizers of Qwen and of toy/tiny.py
VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
NEVER = -100.0


@dataclass
class Completion:
    """``token_ids`` and ``logprobs`` are ``[L]``, ``latents`` ``[slots, H]`` (None of an engine without latents)."""

    token_ids: list[int]
    logprobs: list[float]
    latents: Any


class Engine:
    """A vLLM engine in a process of its own, so that what latents patch there reaches no other engine."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def generate(self, prompts: list[list[int]], **sampling: Any) -> tuple[float, list[Completion]]:
        """Seconds from the first request to the last answer, without their way to this process; and the answers."""
        return self._call("generate", prompts, sampling)

    def reinjected(self) -> int:
        """Returns how many latents were injected again, of an engine with latents."""
        return self._call("reinjected")

    def profile(self, prompts: list[list[int]], **sampling: Any) -> None:
        """As `generate`; writes the trace that the engine's ``profiler_config`` asks for."""
        self._call("profile", prompts, sampling)

    def _call(self, *request: Any) -> Any:
        self.pipe.send(request)
        return self.pipe.recv()


@contextmanager
def engine(checkpoint: Path, *, latents: bool, async_scheduling: bool | None = None, **arguments: Any) -> Iterator[Engine]:
    usual = {"limit_mm_per_prompt": {"image": 1, "video": 0}, "max_model_len": 1024, "max_num_seqs": 256}
    usual |= {"disable_log_stats": True, "async_scheduling": async_scheduling, **engine_defaults()}
    if not torch.cuda.is_available():
        usual["kv_cache_memory_bytes"] = 2**30
    chosen = engine_arguments(str(checkpoint), async_scheduling=async_scheduling) if latents else {}
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, {"model": str(checkpoint), **usual, **chosen, **arguments}, latents))
    process.start()
    theirs.close()
    try:
        ours.recv()  # it has started
        yield Engine(ours)
    finally:
        ours.close()
        process.join()


def _serve(pipe: Connection, arguments: dict[str, Any], latents: bool) -> None:
    from vllm import LLM, SamplingParams

    from future_l1_verl.decoding.vllm import completion_latents

    llm = LLM(**arguments)
    if latents:
        require_live(llm)

    def generate(prompts: list[list[int]], sampling: dict[str, Any]) -> tuple[float, list[Completion]]:
        params = SamplingParams(**sampling)
        started = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - started
        answers = []
        for completion in (output.outputs[0] for output in outputs):
            ids = list(completion.token_ids)
            scores = [entry[token].logprob for entry, token in zip(completion.logprobs or (), ids, strict=False)]
            answers.append(Completion(ids, scores, completion_latents(completion) if latents else None))
        return seconds, answers

    def profile(prompts: list[list[int]], sampling: dict[str, Any]) -> None:
        llm.start_profile()
        generate(prompts, sampling)
        llm.stop_profile()

    def reinjected() -> int:
        return require_live(llm)[0]["reinjected"]

    known = {"generate": generate, "profile": profile, "reinjected": reinjected}
    pipe.send(None)
    while True:
        try:
            name, *given = pipe.recv()
        except EOFError:
            break
        pipe.send(known[name](*given))
    llm.llm_engine.engine_core.shutdown()


def without_latents(checkpoint: Path, out: Path) -> Path:
    """The same checkpoint to an engine that knows nothing of latents: links, and a ``config.json`` without their keys."""
    out.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.name != "config.json":
            (out / path.name).symlink_to(path.resolve())
    config = json.loads((checkpoint / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in CONFIG_KEYS}))
    return out


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """``count`` prompts of PROMPT random tokens of text."""
    rng = random.Random(seed)
    return [rng.choices(WORDS, k=PROMPT) for _ in range(count)]


def logit_bias(checkpoint: Path, opens: float) -> dict[int, float]:
    """Makes a random model open spans often (``opens`` on the start token) and leave vision tokens alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    vocabulary = tokenizer.get_vocab()
    return {LatentTokens.from_tokenizer(tokenizer).start: opens} | {vocabulary[token]: NEVER for token in VISION}
