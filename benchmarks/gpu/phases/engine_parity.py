"""Rollouts by the vLLM engine, in the ways that it runs, against the actor's engine on the same weights; in bf16 on a GPU.

Each answer begins inside a span. The cache is so small that requests are preempted, and their latents injected again.
``text_gap`` is in nats; ``latent_gap`` that of latents to the hidden states that the actor has at their feeding positions,
relative to the root mean square of the latents.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from actor_harness import batch, text_row
from checkpoint import checkpoint
from engines import NEVER, Completion, engine, prompts
from learner import Learner, gap, tree
from record import Form, Record, run
from tensordict import TensorDict

from future_l1_verl.decoding.vllm import request_options
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings

EAGER = {"enforce_eager": True}
GRAPHS = {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": [1, 2, 4, 8, 16]}}
WAYS = {
    "eager": EAGER | {"async_scheduling": False},
    "graphs": GRAPHS | {"async_scheduling": False},
    "graphs, async": GRAPHS | {"async_scheduling": True},
}
CACHE = {
    "max_model_len": 256,
    "max_num_seqs": 16,
    "block_size": 16,
    "num_gpu_blocks_override": 24,
    "enable_prefix_caching": False,
}


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny" if form.cpu else "2b", form.folder)
    settings = tree(path, "fp32" if form.cpu else "bf16")
    temperature = settings.actor_rollout_ref.rollout.temperature
    size = {"dtype": "float32"} if form.cpu else {"dtype": "bfloat16", "gpu_memory_utilization": 0.4}
    actor = cache(lambda: Learner(settings))

    def parity(way: str, chosen: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError if nothing was injected again."""
        arguments = {"logprobs_mode": "processed_logprobs", **CACHE, **size, **chosen}
        with engine(path, latents=True, **arguments) as llm:
            asked, answers = rollouts(llm, path, temperature, count=8 if form.cpu else 16, length=48 if form.cpu else 96)
            reinjected = llm.reinjected()
        if not reinjected:
            raise ValueError(f"{way}: the cache was not too small, no latent was injected again")
        return {"reinjected": reinjected} | gaps(actor(), path, asked, answers)

    for way, chosen in WAYS.items():
        if form.cpu and way != "eager":
            record.skip(way, "a CPU has neither CUDA graphs nor async scheduling")
            continue
        record.cell(way, lambda way=way, chosen=chosen: parity(way, chosen))


def rollouts(llm: Any, path: Path, temperature: float, count: int, length: int) -> tuple[list[list[int]], list[Completion]]:
    """Returns prompts, and answers without the start token that the prompts end with."""
    latent, raw = LatentSettings.from_checkpoint(path), json.loads((path / "config.json").read_text())
    opened = [[*prompt, latent.tokens.start] for prompt in prompts(count)]
    sampling = {
        "max_tokens": length, "temperature": temperature, "ignore_eos": True, "logprobs": 0,
        "logit_bias": {raw["image_token_id"]: NEVER, raw["video_token_id"]: NEVER},  # which the actor rules out as well
        "extra_args": request_options(prompt_latents=torch.empty(0, raw["text_config"]["hidden_size"])),
    }  # fmt: skip
    return [prompt[:-1] for prompt in opened], llm.generate(opened, **sampling)[1]


def _as_batch(asked: list[list[int]], answers: list[Completion], latent: LatentSettings) -> TensorDict:
    rows = []
    for prompt, answer in zip(asked, answers, strict=True):
        row = text_row(torch.tensor([latent.tokens.start, *answer.token_ids]), answer.latents.float(), latent)
        ids = torch.tensor([*prompt, latent.tokens.start, *answer.token_ids])
        positions = torch.arange(len(ids)).expand(4, -1)
        rows.append(row | {"prompts": torch.tensor(prompt), "input_ids": ids, "position_ids": positions})
    return batch(rows)


def gaps(actor: Learner, path: Path, asked: list[list[int]], answers: list[Completion]) -> dict[str, Any]:
    from verl.workers.utils.padding import response_from_nested

    latent = LatentSettings.from_checkpoint(path)
    data = _as_batch(asked, answers, latent)
    output = actor.infer(data, states=True)
    said, sampled = [], []
    for answer, row in zip(answers, response_from_nested(output["log_probs"], data["response_mask"]).unbind(), strict=True):
        ids = torch.tensor([latent.tokens.start, *answer.token_ids])
        text = response_layout(ids, latent.tokens, latent.max_latents).roles[1:] == Role.TEXT
        said.append(row[1:][text])
        sampled.append(torch.tensor(answer.logprobs)[text])
    injected, states = data["latents"].values(), output["latent_states"].values().float()
    return {
        "answers": len(answers), "text_tokens": sum(map(len, said)), "latents": len(injected),
        "text_gap": gap(torch.cat(said), torch.cat(sampled)),
        "latent_gap": float((states - injected).square().mean().sqrt() / injected.square().mean().sqrt()),
    }  # fmt: skip


if __name__ == "__main__":
    run(measure, ranks=True)
