"""``python benchmarks/gpu/parity.py --model DIR``: rollouts by the vLLM engine against the actor on the same weights.

The engine writes ``--answers`` answers, each begun inside a span; the actor's engine (FSDP2) reads them with their latents
injected. Prints a JSON line: mean and largest gap of text log-probs in nats, and of latents against the hidden states
that the actor has at their feeding positions, relative to the root mean square of the latents.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "tests" / "rl"))
from actor_harness import Actor, batch, config, text_row
from engines import NEVER, Completion, engine, prompts
from one_rank import one_rank
from tensordict import TensorDict

from future_l1_verl.decoding.vllm import request_options
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings


def rollouts(args: argparse.Namespace, latent: LatentSettings, temperature: float) -> tuple[list[list[int]], list[Completion]]:
    """Prompts, and answers without the start token that the prompts end with."""
    raw = json.loads((args.model / "config.json").read_text())
    opened = [[*prompt, latent.tokens.start] for prompt in prompts(args.answers)]
    sampling = {
        "max_tokens": args.max_tokens, "temperature": temperature, "ignore_eos": True, "logprobs": 0,
        "logit_bias": {raw["image_token_id"]: NEVER, raw["video_token_id"]: NEVER},  # which the actor rules out as well
        "extra_args": request_options(prompt_latents=torch.empty(0, raw["text_config"]["hidden_size"])),
    }  # fmt: skip
    arguments = {"dtype": args.dtype, "logprobs_mode": "processed_logprobs", **json.loads(args.engine)}
    with engine(args.model, latents=True, **arguments) as llm:
        return [prompt[:-1] for prompt in opened], llm.generate(opened, **sampling)[1]


def as_batch(asked: list[list[int]], answers: list[Completion], latent: LatentSettings) -> TensorDict:
    rows = []
    for prompt, answer in zip(asked, answers, strict=True):
        row = text_row(torch.tensor([latent.tokens.start, *answer.token_ids]), answer.latents, latent)
        ids = torch.tensor([*prompt, latent.tokens.start, *answer.token_ids])
        positions = torch.arange(len(ids)).expand(4, -1)
        rows.append(row | {"prompts": torch.tensor(prompt), "input_ids": ids, "position_ids": positions})
    return batch(rows)


def gaps(args: argparse.Namespace) -> dict[str, Any]:
    from verl.workers.utils.padding import response_from_nested

    latent = LatentSettings.from_checkpoint(args.model)
    platform = "cuda" if torch.cuda.is_available() else "cpu"
    settings = config(args.model, *json.loads(args.overrides), platform=platform)
    asked, answers = rollouts(args, latent, settings.actor_rollout_ref.rollout.temperature)
    actor = Actor(settings, forward_only=True)
    data = as_batch(asked, answers, latent)
    output = actor.infer(data, states=True)
    scored = response_from_nested(output["log_probs"], data["response_mask"]).unbind()
    text = []
    for answer, row in zip(answers, scored, strict=True):
        ids = torch.tensor([latent.tokens.start, *answer.token_ids])
        said = response_layout(ids, latent.tokens, latent.max_latents).roles[1:] == Role.TEXT
        text.append((row[1:].float().cpu() - torch.tensor(answer.logprobs))[said].abs())
    gap, injected = torch.cat(text), torch.cat([answer.latents for answer in answers]).float()
    states = output["latent_states"].values().float().cpu()
    return {
        "dtype": args.dtype,
        "answers": len(answers),
        "text_tokens": len(gap),
        "latents": len(injected),
        "text_gap_mean": gap.mean().item(),
        "text_gap_max": gap.max().item(),
        "latent_gap_mean": ((states - injected).square().mean().sqrt() / injected.square().mean().sqrt()).item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engine", default="{}", help="further arguments of the engine, JSON")
    parser.add_argument("--overrides", default="[]", help="of the config tree, a JSON list")
    args = parser.parse_args()
    with one_rank():
        print(json.dumps(gaps(args)))


if __name__ == "__main__":
    main()
