"""The advantage of LA-DAPO: the reward of a rollout against those of its group, the same for all its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est


@register_adv_est("la_dapo")
def la_dapo_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: np.ndarray, config: Any, **_: Any
) -> tuple[Tensor, Tensor]:
    """``(R_i - mean R) / std R`` over the rollouts of a prompt, ``[B, L]``; ``index`` names the prompt of each row.

    The sum of the reward parts is formed where all rollouts of a prompt meet (agent_loop.py).
    """
    return compute_grpo_outcome_advantage(
        token_level_rewards, response_mask, index, norm_adv_by_std_in_grpo=config.norm_adv_by_std_in_grpo
    )
