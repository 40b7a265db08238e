"""Gets texts from a vLLM engine in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.curation.backends import Question, Sampling, Text, Tokens
from future_l1_verl.data.prompts import engine_prompt


@dataclass(frozen=True)
class VllmSettings:
    """``engine`` are further arguments of `vllm.LLM`, such as ``tensor_parallel_size``."""

    model: str
    sampling: Sampling
    engine: dict[str, Any] = field(default_factory=dict)

    def start(self) -> VllmBackend:
        return VllmBackend(self)


class VllmBackend:
    """One engine. Raises vLLM's error if the model or an argument cannot work."""

    def __init__(self, settings: VllmSettings) -> None:
        # The engine runs in this process: it ends with it, and has all prompts before its first step, so that the
        # same prompts always make the same batches.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from transformers import AutoProcessor
        from vllm import LLM

        from future_l1_verl.platform.vllm_engine import engine_defaults

        self.settings = settings
        self.tokens = Tokens()
        self.processor = AutoProcessor.from_pretrained(settings.model)
        self.engine = LLM(model=settings.model, **engine_defaults() | settings.engine)

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        from future_l1_verl.platform.vllm_engine import refusals

        # The contents of the prefix cache decide how a prompt is split, and so the last bits of the logits.
        self.engine.reset_prefix_cache()
        try:
            return self._generate(questions)
        except refusals() as error:  # of a prompt, and with it the call
            if len(questions) == 1:
                return [[Text(None, f"refused: {error}")] * len(questions[0].seeds)]
            half = len(questions) // 2
            return self.texts(questions[:half]) + self.texts(questions[half:])

    def _generate(self, questions: Sequence[Question]) -> list[list[Text]]:
        from vllm import SamplingParams

        sampling = self.settings.sampling
        prompts = [engine_prompt(self.processor, question.chat) for question in questions]
        params = [
            SamplingParams(
                n=len(question.seeds),
                seed=question.seeds[0],  # vLLM uses the next numbers for the next texts
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                skip_special_tokens=True,
            )
            for question in questions
        ]
        outputs = self.engine.generate(prompts, params, use_tqdm=False)
        self.tokens.prompt += sum(len(output.prompt_token_ids) for output in outputs)
        self.tokens.generated += sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
        return [[Text(completion.text, None) for completion in output.outputs] for output in outputs]
