"""The advantage of LA-DAPO: compares each reward part of a rollout with those of its group.

Index convention: row i is a rollout; ``groups[i]`` names its prompt; column k of the parts is a reward part with weight k.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from future_l1_verl.rewards.weights import LATENT_PARTS, PARTS, Weights

EPSILON = 1e-6
"""Added to every standard deviation, as in verl's GRPO (core_algos.py)."""


def part_advantages(
    parts: Tensor, weights: Tensor, groups: Sequence[object], counted: Tensor, normalise: str = "sum", by_std: bool = True
) -> Tensor:
    """Returns the contribution of each reward part to each advantage, fp64 ``[B, P]``; a row's sum is its advantage.

    ``parts`` ``[B, P]`` are the rewards, ``weights`` ``[P]`` their lambdas. With w_k r_k centred in its group, ``sum``
    divides by the standard deviation of the group's summed reward (GRPO, DAPO) and ``parts`` by that of the part itself (GDPO,
    arXiv 2601.05242, without its batch whitening). ``by_std`` False does not divide (Dr. GRPO).

    Rows that are not ``counted`` (bool ``[B]``: padding, rollouts without a verdict) get 0 and are left out of their group. A
    group of one has no baseline, and gets 0.
    """
    parts, weights = parts.double(), weights.double()
    advantages = torch.zeros_like(parts)
    names = np.asarray(groups, dtype=object)
    for group in dict.fromkeys(groups):
        rows = torch.from_numpy(names == group) & counted
        if int(rows.sum()) < 2:
            continue
        rewards = parts[rows]
        centred = weights * (rewards - rewards.mean(dim=0))
        if by_std and normalise == "sum":
            centred = centred / ((rewards @ weights).std() + EPSILON)
        elif by_std:
            centred = centred / (rewards.std(dim=0) + EPSILON)
        advantages[rows] = centred
    return advantages


def per_token(advantages: Tensor, latent_parts: Tensor, mask: Tensor, slots: Tensor, route: str = "all") -> Tensor:
    """Returns the advantage of each entry, fp32 ``[B, L]``, 0 outside ``mask``.

    ``advantages`` is ``[B, P]``; ``latent_parts`` (bool ``[P]``) marks the parts of latents. ``all`` gives every token the sum
    of all parts; ``slots`` gives the latent parts only to the entries in ``slots`` (bool ``[B, L]``).
    """
    whole = advantages.sum(dim=1, keepdim=True)
    if route == "slots":
        whole = torch.where(slots, whole, advantages[:, ~latent_parts].sum(dim=1, keepdim=True))
    return (whole * mask).float()


def rollout_advantages(
    infos: Sequence[Mapping[str, float]],
    groups: Sequence[object],
    weights: Weights,
    mask: Tensor,
    slots: Tensor,
    *,
    normalise: str,
    latent_parts: str,
    by_std: bool,
) -> Tensor:
    """Returns fp32 ``[B, L]`` from the ``reward_extra_info`` of each rollout (agent_loop.py); masked rows are left out.

    ``mask`` and ``slots`` are ``[B, L]``; ``latent_parts`` says which entries get the parts of latents: ``all`` or ``slots``.
    """
    parts = torch.tensor(
        [[info["acc" if part == "accuracy" else part] for part in PARTS] for info in infos], dtype=torch.float64
    )
    counted = mask.bool().any(dim=1)
    lambdas = torch.tensor(weights.in_order(), dtype=torch.float64)
    each = part_advantages(parts.nan_to_num(), lambdas, groups, counted, normalise, by_std)
    return per_token(each, torch.tensor([part in LATENT_PARTS for part in PARTS]), mask, slots, latent_parts)


@register_adv_est("la_dapo")
def la_dapo_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: np.ndarray, config: Any, **_: Any
) -> tuple[Tensor, Tensor]:
    """Returns ``(R_i - mean R) / std R`` over the rollouts of a prompt, ``[B, L]``; ``index`` names the prompt of a row.

    It is for verl's own trainers, whose estimators get only the summed reward; ours (trainer.py) uses the parts.
    """
    rewards = token_level_rewards.sum(dim=-1, keepdim=True)
    counted = response_mask.any(dim=-1).to(torch.bool)
    by_std = config.norm_adv_by_std_in_grpo
    whole = part_advantages(rewards, torch.ones(1), list(index), counted, by_std=by_std)
    advantages = (whole * response_mask).float()
    return advantages, advantages
