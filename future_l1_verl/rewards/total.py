"""The reward parts of all rollouts of a prompt and their weighted sum (paper section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.latent import ContrastiveCase, contrast, similarities, temporal_diversity
from future_l1_verl.rewards.weights import Weights


@dataclass(frozen=True)
class Rollout:
    """The inputs of the rewards: the grade of the answer (None if its verdict failed), whether the reply is well formed, the
    latents ``[L_m, H]`` of each span, and the penalties in [-1, 0]."""

    grade: Grade | None
    well_formed: bool
    spans: Sequence[Tensor]
    repetition: float = 0.0
    overlong: float = 0.0


@dataclass(frozen=True)
class GroupRewards:
    """The rewards of the N rollouts of a prompt.

    ``parts`` fp64 ``[N, P]`` in the order of `PARTS`; ``total`` fp64 ``[N]`` their weighted sum; ``case`` int64 ``[N]`` the
    `ContrastiveCase` of R_ctr; ``diverse`` bool ``[N]`` whether R_div is defined; ``similar`` fp32 ``[N, N]``, see
    `similarities`. A rollout without a verdict is not ``counted`` (bool ``[N]``): its parts are 0 and must not be learned from.
    """

    parts: Tensor
    total: Tensor
    case: Tensor
    diverse: Tensor
    counted: Tensor
    similar: Tensor


def group_rewards(rollouts: Sequence[Rollout], weights: Weights, temperature: float = 0.5) -> GroupRewards:
    """Returns the rewards of a group; ``temperature`` is the tau of R_ctr.

    A latent part that is not defined for a rollout (no latents; fewer than two spans) counts as the mean over the rollouts
    for which it is defined: having or lacking spans changes no reward by itself.
    """
    grades = [rollout.grade for rollout in rollouts]
    counted = torch.tensor([grade is not None for grade in grades], dtype=torch.bool)
    similar = similarities([torch.cat(list(rollout.spans)) if rollout.spans else None for rollout in rollouts])
    outcomes = [None if grade is None else grade.correct for grade in grades]
    contrastive, case = contrast(similar, outcomes, temperature)
    diverse = torch.tensor([len(rollout.spans) > 1 for rollout in rollouts], dtype=torch.bool)
    diversity = torch.tensor([temporal_diversity(rollout.spans) for rollout in rollouts])
    columns = [
        torch.tensor([outcome is True for outcome in outcomes]),
        torch.tensor([rollout.well_formed for rollout in rollouts]),
        _neutral(contrastive, case != ContrastiveCase.UNDEFINED),
        _neutral(diversity, diverse & counted),
        torch.tensor([rollout.repetition for rollout in rollouts]),
        torch.tensor([rollout.overlong for rollout in rollouts]),
    ]
    parts = torch.stack([column.double() for column in columns], dim=1) * counted[:, None]
    return GroupRewards(parts, parts @ torch.tensor(weights.in_order(), dtype=torch.float64), case, diverse, counted, similar)


def _neutral(values: Tensor, defined: Tensor) -> Tensor:
    return torch.where(defined, values, values[defined].mean() if defined.any() else 0.0)
