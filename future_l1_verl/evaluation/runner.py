"""Answers of a checkpoint to the questions of a file, by vLLM with latent spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from future_l1_verl.data.prompts import engine_prompt, messages
from future_l1_verl.data.rows import Row, frames
from future_l1_verl.decoding.vllm import completion_latents, engine_arguments, require_live
from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.answer import answer_text, grade


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn: greedy by default, as in paper section 5."""

    max_tokens: int = 2048
    temperature: float = 0.0
    min_latents: int = 1
    seed: int = 0
    dtype: str = "auto"
    max_model_len: int | None = None
    system_prompt: str | None = None


def answer(checkpoint: str | Path, rows: Sequence[Row], decoding: Decoding) -> list[dict[str, Any]]:
    """One record per row, in order: ``id, split, text, token_ids, spans`` (latents per span), ``correct, parsed``, question.

    A reply without one ``<answer>`` is unparsed, as it is in training.
    """
    from transformers import AutoProcessor
    from vllm import LLM, SamplingParams

    processor = AutoProcessor.from_pretrained(checkpoint)
    settings = LatentSettings.from_checkpoint(checkpoint)
    prompts = []
    for row in rows:
        chat = messages(row, row["problem"], *frames(row, "image"), decoding.system_prompt)
        prompts.append(engine_prompt(processor, chat))

    engine = LLM(
        model=str(checkpoint),
        dtype=decoding.dtype,
        max_model_len=decoding.max_model_len,
        seed=decoding.seed,
        limit_mm_per_prompt={"image": max(len(row["image"]) for row in rows)},
        enforce_eager=not torch.cuda.is_available(),
        **engine_arguments(str(checkpoint), min_latents=decoding.min_latents),
    )
    require_live(engine)
    params = SamplingParams(max_tokens=decoding.max_tokens, temperature=decoding.temperature, skip_special_tokens=False)
    outputs = engine.generate(prompts, params)
    return [_record(row, output.outputs[0], settings, decoding) for row, output in zip(rows, outputs, strict=True)]


def _record(row: Row, completion: Any, settings: LatentSettings, decoding: Decoding) -> dict[str, Any]:
    ids = torch.tensor(completion.token_ids)
    layout = response_layout(ids, settings.tokens, settings.max_latents, decoding.min_latents)
    spans = (layout.spans[:, 1] - layout.spans[:, 0]).tolist()
    latents = completion_latents(completion)
    if len(latents) != sum(spans):
        raise RuntimeError(f"{row['source']}: {sum(spans)} slots but {len(latents)} latents came back from the engine")
    return {
        "id": row.get("id"),
        "split": row.get("split", row["data_source"]),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "spans": spans,
        **asdict(grade(answer_text(completion.text) or "", row["answer"], row.get("options"))),
        "problem": row["problem"],
        "truth": row["answer"],
        "options": list(row.get("options") or ()),
        "video": row["video"],
        "image": list(row["image"]),
    }
