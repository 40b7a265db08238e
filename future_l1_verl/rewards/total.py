"""R = sum of the weighted reward parts of each rollout of a prompt (paper section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from future_l1_verl.rewards.answer import Outcome
from future_l1_verl.rewards.latent import outcome_contrastive, temporal_diversity


@dataclass(frozen=True)
class Weights:
    """The lambdas of paper section 4 and the temperature of R_ctr."""

    accuracy: float = 0.9
    format: float = 0.1
    contrastive: float = 0.2
    diversity: float = 0.1
    temperature: float = 0.5


@dataclass(frozen=True)
class Rollout:
    """What the rewards look at: outcome by rule or judge, shape, and the latents ``[L_m, H]`` of each span."""

    outcome: Outcome
    well_formed: bool
    spans: Sequence[Tensor]


def group_rewards(rollouts: Sequence[Rollout], weights: Weights) -> list[dict[str, float]]:
    """Reward parts of all rollouts of one prompt: ``acc, format, contrastive, diversity``, their sum ``reward``, and which
    of the latent parts were defined (``contrastive_defined``, ``diversity_defined``; 0 or 1).

    A part that is not defined for a rollout counts as the mean of those for which it is: having or lacking spans earns
    nothing by itself.
    """
    correct = [rollout.outcome is Outcome.CORRECT for rollout in rollouts]
    trajectories = [torch.cat(list(rollout.spans)) if rollout.spans else None for rollout in rollouts]
    contrastive = outcome_contrastive(trajectories, correct, weights.temperature).tolist()
    several = [len(rollout.spans) > 1 for rollout in rollouts]
    measured = [temporal_diversity(rollout.spans) for rollout in rollouts if len(rollout.spans) > 1]
    neutral = sum(measured) / len(measured) if measured else 0.0

    parts = []
    for i, rollout in enumerate(rollouts):
        part = {
            "acc": float(correct[i]),
            "format": float(rollout.well_formed),
            "contrastive": contrastive[i],
            "diversity": temporal_diversity(rollout.spans) if several[i] else neutral,
            "contrastive_defined": float(bool(rollout.spans)),
            "diversity_defined": float(several[i]),
        }
        part["reward"] = (
            weights.accuracy * part["acc"]
            + weights.format * part["format"]
            + weights.contrastive * part["contrastive"]
            + weights.diversity * part["diversity"]
        )
        parts.append(part)
    return parts
