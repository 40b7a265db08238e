"""Rollouts of a real engine, scored again by the training forward: the equality that stage 2 rests on."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration
from vllm import LLM, SamplingParams

from future_l1_verl.decoding.vllm import completion_latents, engine_arguments, require_live
from future_l1_verl.latents.likelihood import Family
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.modeling.backbones import install_latents
from future_l1_verl.modeling.latent_vl import LatentVL
from future_l1_verl.modeling.packing import Packing
from future_l1_verl.rl.parity import parity, sums
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.engine

# The log-probs of a rollout are those of the whole distribution: with vLLM's own, of the truncated one, the gap would be 0.05.
TEMPERATURE, TOP_P = 0.9, 0.95


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.build(out, seed=1)
    return out


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LatentVL:
    module = Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    return install_latents(module, Family("none").log_density).eval()


@pytest.fixture(scope="module")
def rollouts(checkpoint: Path, model: LatentVL) -> list[tuple[list[int], object]]:
    """``(prompt ids, completion)``; a random model opens few spans, so there are many rollouts."""
    engine = LLM(
        model=str(checkpoint), dtype="float32", max_model_len=256, max_num_seqs=64, enforce_eager=True, seed=0,
        logprobs_mode="processed_logprobs", limit_mm_per_prompt={"image": 1}, **engine_arguments(str(checkpoint)),
    )  # fmt: skip
    require_live(engine)
    banned = {model.config.image_token_id: -100.0, model.config.video_token_id: -100.0}  # as verl bans them
    params = SamplingParams(
        n=192, max_tokens=64, temperature=TEMPERATURE, top_p=TOP_P, logprobs=0, logit_bias=banned, ignore_eos=True
    )
    outputs = engine.generate([{"prompt_token_ids": list(range(20, 20 + length))} for length in (5, 9)], params)
    return [(output.prompt_token_ids, completion) for output in outputs for completion in output.outputs]


@torch.no_grad()
def entries(model: LatentVL, prompt: list[int], completion, latents: torch.Tensor) -> torch.Tensor:
    sequence = torch.tensor([prompt + list(completion.token_ids)])
    positions = torch.arange(sequence.shape[1]).expand(4, 1, -1)
    packing = Packing((len(prompt),), (len(completion.token_ids),), (0,))
    return model(sequence, positions, packing, latents=latents, temperature=TEMPERATURE).log_probs


def layout(model: LatentVL, completion):
    return response_layout(torch.tensor(completion.token_ids), model.latent.tokens, model.latent.max_latents)


def reported(completion) -> torch.Tensor:
    return torch.tensor([entry[token].logprob for token, entry in zip(completion.token_ids, completion.logprobs, strict=True)])


def gaps(model: LatentVL, rollouts, choose) -> list[dict[str, float]]:
    found = []
    for prompt, completion in rollouts:
        roles = layout(model, completion).roles
        if bool((roles == Role.LATENT).any()):
            actor = entries(model, prompt, completion, choose(completion_latents(completion)))
            found.append(parity(sums(reported(completion), actor, roles, torch.ones(len(roles), dtype=torch.bool))))
    return found


def test_actor_and_rollout_agree_and_without_injection_they_do_not(model: LatentVL, rollouts) -> None:
    """docs/differences.md, row 1."""
    right = gaps(model, rollouts, lambda latents: latents)
    assert len(right) >= 5
    assert max(gap["parity/text_gap_max"] for gap in right) <= 1e-4
    assert sum(gap["parity/text_gap_mean"] for gap in right) / len(right) <= 1e-5

    placeholder = model.get_input_embeddings().weight[model.latent.tokens.latent].detach()
    wrong = gaps(model, rollouts, placeholder.expand_as)
    assert max(gap["parity/text_gap_max"] for gap in wrong) >= 100 * max(gap["parity/text_gap_max"] for gap in right)


def test_decisions_agree_too(model: LatentVL, rollouts) -> None:
    decisions = 0
    for prompt, completion in rollouts:
        free = layout(model, completion).roles == Role.LATENT
        actor = entries(model, prompt, completion, completion_latents(completion, 128))
        torch.testing.assert_close(actor[free], reported(completion)[free], atol=1e-5, rtol=0)
        decisions += int(free.sum())
    assert decisions >= 10
