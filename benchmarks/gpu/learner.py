"""The actor's engine and questions in text for it, without vLLM and without Ray's cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from actor_harness import Actor, batch, config, text_row
from engines import WORDS
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.platform.launch import take_platform

PLATFORM = "cuda" if torch.cuda.is_available() else "cpu"
take_platform(PLATFORM)

from future_l1_verl.rl.loss import la_dapo_loss  # noqa: E402  verl is imported here
from future_l1_verl.rl.settings import LatentLoss  # noqa: E402

EVERY = 16  # tokens of an answer in which there is one full span
ENGINE = "actor_rollout_ref.actor.fsdp_config"


def tree(checkpoint: Path, precision: str, *overrides: str) -> DictConfig:
    """Stage 2's config. ``precision`` (bf16 or fp32) is what FSDP2 computes in; the weights it keeps are fp32. The attention is
    torch's, so that FlashAttention need not be there."""
    return config(
        checkpoint, "actor_rollout_ref.model.external_lib=future_l1_verl.training.engine",
        "actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"++{ENGINE}.mixed_precision.param_dtype={precision}", *overrides, platform=PLATFORM,
    )  # fmt: skip


class Learner(Actor):
    """An `Actor` that is made without what of stage 2 needs vLLM."""

    def __init__(self, config: DictConfig, forward_only: bool = False) -> None:
        from verl.utils.config import omega_conf_to_dataclass
        from verl.workers.engine import EngineRegistry

        torch.manual_seed(0)
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
        object.__setattr__(actor.engine, "forward_only", forward_only)
        self.engine = EngineRegistry.new(
            model_type=model.model_type, backend=actor.engine.strategy, model_config=model, engine_config=actor.engine,
            optimizer_config=actor.optim, checkpoint_config=actor.checkpoint,
        )  # fmt: skip
        self.engine.initialize()
        latent = LatentLoss.read(config, "latent_loss")
        self.loss = partial(
            la_dapo_loss, config=actor, latent=latent,
            latent_config=replace(
                actor, clip_ratio_low=latent.clip_low, clip_ratio_high=latent.clip_high, global_batch_info={}
            ),
            settings=LatentSettings.from_checkpoint(config.actor_rollout_ref.model.path), min_latents=config.latent.min_latents,
        )  # fmt: skip
        self.temperature = config.actor_rollout_ref.rollout.temperature
        self.kl = config.latent_loss.kl_coef > 0

    def infer(self, data: TensorDict, states: bool = False, **shape: Any) -> dict[str, Tensor]:
        """As the actor's, brought to the host, where the batch is."""
        return {name: values.cpu() for name, values in super().infer(data, states, **shape).items()}

    def log_probs(self, data: TensorDict, **shape: Any) -> Tensor:
        """Returns those of all answers' tokens, fp32 ``[N]``."""
        from verl.workers.utils.padding import response_from_nested

        return response_from_nested(self.infer(data, **shape)["log_probs"], data["response_mask"]).values().float()

    def step(self, data: TensorDict, **shape: Any) -> float:
        """Makes an update, and returns its loss."""
        prepared = self._prepared(data, **shape)
        with self.engine.train_mode():
            losses = self.engine.train_batch(prepared, loss_function=self.loss)["loss"]
        return float(sum(losses))


def questions(checkpoint: Path, prompt: int, answers: Sequence[int], count: int = 1) -> TensorDict:
    """``count`` questions of ``prompt`` random words, with answers of so many tokens, a full span in each `EVERY` of them."""
    settings, generator = LatentSettings.from_checkpoint(checkpoint), torch.Generator().manual_seed(0)
    hidden = json.loads((checkpoint / "config.json").read_text())["text_config"]["hidden_size"]
    tokens = settings.tokens
    span = torch.tensor([tokens.start, *[tokens.latent] * settings.max_latents, tokens.end])

    def words(length: int) -> Tensor:
        return torch.randint(WORDS.start, WORDS.stop, (length,), generator=generator)

    rows = []
    for number in range(count):
        asked = words(prompt)
        for length in answers:
            answer = words(length)
            for first in range(1, length - len(span), EVERY):
                answer[first : first + len(span)] = span
            slots = int((answer == tokens.latent).sum())
            row = text_row(answer, torch.randn(slots, hidden, generator=generator), settings)
            ids = torch.cat([asked, answer])
            rows.append(
                row | {
                    "prompts": asked, "input_ids": ids, "position_ids": torch.arange(len(ids)).expand(4, -1),
                    "uid": f"question {number}",
                }
            )  # fmt: skip
    return batch(rows)


def gap(a: Tensor, b: Tensor) -> dict[str, float]:
    """Returns the mean and the largest of ``|a - b|``."""
    difference = (a.float() - b.float()).abs()
    return {"mean": float(difference.mean()), "max": float(difference.max())}
