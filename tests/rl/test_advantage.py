"""Advantages of reward parts, against GRPO's formula and verl's own."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from future_l1_verl.rewards.weights import Weights
from future_l1_verl.rl.advantage import la_dapo_advantage, part_advantages, per_token, rollout_advantages

WEIGHTS = torch.tensor([0.9, 0.1, 0.2])


def random_parts(seed: int, rows: int) -> torch.Tensor:
    return torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000), st.integers(2, 8), st.booleans())
def test_the_sum_over_parts_is_verls_grpo(seed: int, size: int, by_std: bool) -> None:
    parts = random_parts(seed, 2 * size)
    groups = ["a"] * size + ["b"] * size
    mask = torch.ones(2 * size, 4)
    rewards = torch.cat([torch.zeros(2 * size, 3), (parts @ WEIGHTS)[:, None]], dim=1)
    expected, _ = compute_grpo_outcome_advantage(rewards, mask, np.array(groups), norm_adv_by_std_in_grpo=by_std)
    ours = part_advantages(parts, WEIGHTS, groups, torch.ones(2 * size, dtype=torch.bool), by_std=by_std)
    torch.testing.assert_close(ours.sum(1).float(), expected[:, 0], rtol=1e-3, atol=1e-4)
    registered, _ = la_dapo_advantage(rewards, mask, np.array(groups), SimpleNamespace(norm_adv_by_std_in_grpo=by_std))
    torch.testing.assert_close(registered, expected, rtol=1e-3, atol=1e-4)


def test_parts_are_normalised_each_by_itself() -> None:
    # Rewards (0, 1) and (0, 3): centred -1/2, 1/2 and -3/2, 3/2, with standard deviations (n - 1) of sqrt(1/2) and 3 sqrt(1/2).
    parts = torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    ours = part_advantages(parts, torch.tensor([0.5, 2.0]), ["a", "a"], torch.ones(2, dtype=torch.bool), normalise="parts")
    half = 0.5**0.5
    assert ours[1].tolist() == pytest.approx([0.5 * half, 2.0 * half], rel=1e-5)
    torch.testing.assert_close(ours[0], -ours[1])


@given(st.integers(0, 1000))
def test_uncounted_rows_get_nothing_and_change_nothing(seed: int) -> None:
    """Padding rows, and rollouts without a verdict (docs/differences.md, row 22)."""
    parts = random_parts(seed, 4)
    counted = torch.tensor([True, True, True, False])
    ours = part_advantages(parts, WEIGHTS, ["a"] * 4, counted)
    alone = part_advantages(parts[:3], WEIGHTS, ["a"] * 3, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(ours[:3], alone)
    assert ours[3].tolist() == [0.0] * 3


@pytest.mark.parametrize("normalise", ["sum", "parts"])
def test_a_group_of_one_and_a_group_of_equals_have_no_advantage(normalise: str) -> None:
    # 0.1 has no exact binary form: in fp32 the rounding of the mean, divided by 1e-6, would be an advantage of its own.
    parts = torch.tensor([[0.1, 0.7, 0.3]]).repeat(8, 1)
    ours = part_advantages(parts, WEIGHTS, ["one"] + ["equal"] * 7, torch.ones(8, dtype=torch.bool), normalise=normalise)
    assert ours.abs().max() < 1e-9


def test_latent_parts_may_go_to_slots_only() -> None:
    advantages = torch.tensor([[1.0, 0.5, 0.25]])
    latent_parts = torch.tensor([False, True, True])
    mask, slots = torch.tensor([[1, 1, 1, 0]]), torch.tensor([[False, True, False, True]])
    assert per_token(advantages, latent_parts, mask, slots).tolist() == [[1.75, 1.75, 1.75, 0.0]]
    assert per_token(advantages, latent_parts, mask, slots, "slots").tolist() == [[1.0, 1.75, 1.0, 0.0]]


def test_advantages_of_rollouts_from_their_infos() -> None:
    """Accuracy is called "acc" by verl, and NaN without a verdict; such a rollout is masked and in nobody's mean."""
    rest = {"format": 0.0, "diversity": 0.0, "repetition": 0.0, "overlong": 0.0}
    earned = [(1.0, 0.0), (0.0, 1.0), (np.nan, 0.0)]
    infos = [rest | {"acc": accuracy, "contrastive": contrastive} for accuracy, contrastive in earned]
    mask = torch.tensor([[1, 1], [1, 1], [0, 0]])
    slots = torch.tensor([[False, True]] * 3)
    weights = Weights(accuracy=1.0, format=0.0, contrastive=0.5, diversity=0.0)

    def advantages(normalise: str, latent_parts: str) -> list[list[float]]:
        options = {"normalise": normalise, "latent_parts": latent_parts, "by_std": True}
        return rollout_advantages(infos, ["a"] * 3, weights, mask, slots, **options).tolist()

    # Sums 1 and 0.5: centred 1/4 and -1/4, of which accuracy 1/2 and -1/2; their standard deviation is sqrt(1/8).
    std = 0.125**0.5
    assert advantages("sum", "all") == [pytest.approx([v] * 2, abs=1e-4) for v in (0.25 / std, -0.25 / std, 0.0)]
    assert advantages("sum", "slots")[0] == pytest.approx([0.5 / std, 0.25 / std], abs=1e-4)
    # Each part by itself: 1/2 over sqrt(1/2), and R_ctr the other way with half the weight.
    alone = 0.5 / 0.5**0.5
    assert advantages("parts", "slots")[0] == pytest.approx([alone, 0.5 * alone], abs=1e-4)
