"""What the decoding tests share: prompts, engines, and the comparison of vLLM's completions with the oracle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from future_l1_verl.decoding import hf
from future_l1_verl.decoding.vllm import completion_latents, engine_arguments, request_options
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings

# Few and small blocks, and prompts in chunks: requests are preempted all the time.
BLOCK = 32  # tokens; the least that every tested vLLM has on a CPU
CRAMPED = dict(num_gpu_blocks_override=15, max_num_batched_tokens=64, max_model_len=400)
PARITY = 1e-5  # fp32, the largest absolute difference over all values compared
BROKEN = 1e-2  # what a difference is at least when something is broken on purpose
BF16 = 0.1  # the same in bf16, against the fp32 oracle: on a CPU it is 0.043, and 2.5 where latents are not injected
NEVER = -100.0
V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"  # by pytest's --model-runner
TIMES = 1 if V2 else 2  # how often prompts are asked: V2's kernels are interpreted, some hundredths of a second a row and token


@dataclass(frozen=True)
class Prompt:
    """One prompt, for vLLM and as a processor's output for the oracle."""

    for_vllm: dict[str, Any]
    inputs: dict[str, torch.Tensor]


@dataclass
class Agreement:
    """Largest absolute differences between vLLM and the oracle, and how much was compared."""

    latents: float = 0.0
    logprobs: float = 0.0
    slots: int = 0
    roles: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(Role, 0))
    open_spans: int = 0  # completions that ended inside a span

    @property
    def worst(self) -> float:
        return max(self.latents, self.logprobs)


class Oracle:
    """The plain transformers model of a checkpoint."""

    def __init__(self, checkpoint: str) -> None:
        self.settings = LatentSettings.from_checkpoint(checkpoint)
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.vocabulary = self.processor.tokenizer.get_vocab()

    @property
    def bias(self) -> dict[int, float]:
        """``logit_bias`` that makes a random model open and close spans often, and leave vision tokens alone."""
        tokens = self.settings.tokens
        vision = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
        return {tokens.start: 5.0, tokens.end: 5.0} | {self.vocabulary[token]: NEVER for token in vision}

    @contextmanager
    def biased(self, bias: dict[int, float]) -> Iterator[None]:
        """While active, the model's own logits carry ``bias``, as vLLM's processed ones do."""
        head = self.model.lm_head
        vector = torch.zeros(head.out_features)
        vector[list(bias)] = torch.tensor(list(bias.values()))
        head.bias = torch.nn.Parameter(vector)
        try:
            yield
        finally:
            head.bias = None

    def prompts(self) -> list[Prompt]:
        """Short and long text, and a video with a short and a long question."""
        long = "the ball moves left and then right "
        texts = [self._text(text) for text in ("what happens next?", long * 6, "answer A")]
        return texts + [self._video(text) for text in ("what happens next?", long * 3)]

    def _chat(self, *parts: dict[str, str]) -> str:
        message = {"role": "user", "content": list(parts)}
        return self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)

    def image(self, text: str) -> Prompt:
        chat = self._chat({"type": "image"}, {"type": "text", "text": text})
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 64, 3), dtype=np.uint8))
        inputs = self.processor(text=[chat], images=[image], return_tensors="pt")
        return Prompt({"prompt": chat, "multi_modal_data": {"image": [image]}}, dict(inputs))

    def of_ids(self, ids: list[int]) -> Prompt:
        inputs = torch.tensor([ids])
        return Prompt({"prompt_token_ids": ids}, {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)})

    def _text(self, text: str) -> Prompt:
        chat = self._chat({"type": "text", "text": text})
        return Prompt({"prompt": chat}, dict(self.processor(text=[chat], return_tensors="pt")))

    def _video(self, text: str) -> Prompt:
        chat = self._chat({"type": "video"}, {"type": "text", "text": text})
        frames = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
        metadata = {
            "fps": 2.0,
            "duration": 4.0,
            "total_num_frames": 8,
            "frames_indices": list(range(8)),
            "video_backend": "none",
        }
        inputs = self.processor(
            text=[chat], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
        )
        video = (frames, metadata | {"do_sample_frames": False})
        return Prompt({"prompt": chat, "multi_modal_data": {"video": [video]}}, dict(inputs))

    def compare(
        self,
        outputs: Iterable[Any],
        prompts: Iterable[Prompt],
        *,
        max_latents: int | None = None,
        min_latents: int = 1,
        temperature: float = 1.0,
        noise: Callable[[int, int, torch.Tensor], torch.Tensor] | None = None,
    ) -> Agreement:
        """Reads every completion with the oracle.

        ``noise(request, completion, positions)`` is what was added to the latents at absolute positions ``[S]``: ``[S, H]``.
        """
        settings = LatentSettings(self.settings.tokens, max_latents or self.settings.max_latents)
        total = Agreement()
        for request, (output, prompt) in enumerate(zip(outputs, prompts, strict=True)):
            assert output.prompt_token_ids == prompt.inputs["input_ids"][0].tolist()
            for completion in output.outputs:
                ids = torch.tensor(list(completion.token_ids))
                latents = completion_latents(completion, self.model.config.text_config.hidden_size).float()
                expected = hf.score(
                    self.model, prompt.inputs, ids, latents, settings, temperature=temperature, min_latents=min_latents
                )
                assert_well_formed(ids, expected.layout.roles, settings)
                if noise is not None:
                    positions = len(output.prompt_token_ids) + expected.layout.slots.nonzero()[:, 0]
                    latents = latents - noise(request, completion.index, positions)
                reported = [entry[token].logprob for entry, token in zip(completion.logprobs, ids.tolist(), strict=True)]
                difference = (torch.tensor(reported) - expected.logprobs).abs().max().item()
                total.logprobs = max(total.logprobs, difference)
                if len(latents):
                    total.latents = max(total.latents, (latents - expected.hidden).abs().max().item())
                total.slots += len(latents)
                total.open_spans += int(expected.layout.slots[-1])
                for role in expected.layout.roles.tolist():
                    total.roles[Role(role)] += 1
        return total


def assert_well_formed(ids: torch.Tensor, roles: torch.Tensor, settings: LatentSettings) -> None:
    """Every latent and every start token belongs to a span that holds at least one latent and is closed."""
    tokens = settings.tokens
    assert not ((ids == tokens.latent) & (roles == Role.TEXT)).any(), "a latent outside a span"
    after = torch.cat([ids[1:], torch.tensor([-1])])
    start = (ids == tokens.start) & (after >= 0)
    assert (after[start] == tokens.latent).all(), "an empty span"
    slot = (ids == tokens.latent) & (after >= 0)
    assert ((after[slot] == tokens.latent) | (after[slot] == tokens.end)).all(), "a span that is not closed"


def without_keys(checkpoint: str, out: Path, *keys: str) -> str:
    """A copy of a checkpoint in ``out`` whose ``config.json`` lacks ``keys``."""
    shutil.copytree(checkpoint, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))
    return str(out)


def span_lengths(ids: list[int], settings: LatentSettings) -> list[int]:
    """Lengths of the closed spans of a completion."""
    layout = response_layout(torch.tensor(ids), settings.tokens, len(ids))
    return [end - first for first, end in layout.spans.tolist() if end < len(ids)]


def engine(checkpoint: str, latent: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """Arguments of a small engine with latent spans."""
    small: dict[str, Any] = dict(
        model=checkpoint,
        dtype="float32",
        max_model_len=512,
        max_num_seqs=16,
        block_size=BLOCK,
        kv_cache_memory_bytes=2**26,
        enforce_eager=True,
        disable_log_stats=False,
        limit_mm_per_prompt={"image": 1, "video": 1},
    )
    return small | engine_arguments(checkpoint, **(latent or {})) | arguments


@contextmanager
def in_process(checkpoint: str, latent: dict[str, Any] | None = None, **arguments: Any) -> Iterator[Any]:
    """An LLM whose scheduler and worker live in this process, so that a test can look into them and break them."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            llm = LLM(**engine(checkpoint, latent, **arguments))
            try:
                yield llm
            finally:
                llm.llm_engine.engine_core.shutdown()
        finally:  # also of an engine that was refused when it was half made
            cleanup_dist_env_and_memory()


def scheduler_of(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


def runner_of(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner


def drain(llm: Any) -> None:
    """Steps until the worker has been told of every finished request."""
    core = llm.llm_engine.engine_core.engine_core
    while core.scheduler.has_requests():
        core.step_fn()


def preemptions(llm: Any) -> int:
    return sum(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def blocking(oracle: Oracle, blocks: tuple[int, int]) -> tuple[list[Prompt], list[Any]]:
    """Two requests that fill all 14 blocks of an engine that is `CRAMPED`, within a span, and how they are sampled. The first
    has its last token in flight when the second needs one more: nothing can be scheduled, and then the second is resumed,
    whose last latent is that of the step in flight."""
    from vllm import SamplingParams

    decoded, start = 12, oracle.settings.tokens.start
    prompts = [oracle.of_ids([20 + (k + count) % 300 for k in range(BLOCK * count - decoded)]) for count in blocks]
    samplings = [
        SamplingParams(
            max_tokens=wanted, temperature=1.0, ignore_eos=True, logprobs=0, logit_bias={start: 100.0},
            extra_args=request_options(min_latents=40, max_latents=40),
        )
        for wanted in (decoded + 1, decoded + 20)
    ]  # fmt: skip
    return prompts, samplings
