"""R_ctr and R_div against the formulas of paper section 4, written out with loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.rewards.answer import Outcome
from future_l1_verl.rewards.latent import outcome_contrastive, temporal_diversity
from future_l1_verl.rewards.total import Rollout, Weights, group_rewards


def similarity_by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    steps = min(len(a), len(b))
    cosines = [float(a[t] @ b[t] / (a[t].norm() * b[t].norm())) for t in range(steps)]
    return sum((1 + c) / 2 for c in cosines) / steps


def contrastive_by_hand(z: list[torch.Tensor], correct: list[bool], temperature: float) -> list[float]:
    values = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [similarity_by_hand(z[i], z[j]) for j in others if correct[j]]
        negatives = [similarity_by_hand(z[i], z[j]) for j in others if not correct[j]]
        if not positives:
            values.append(0.0)
            continue
        top = math.exp(max(positives) / temperature)
        values.append(top / (top + sum(math.exp(s / temperature) for s in negatives)))
    return values


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[torch.Tensor], list[bool]]:
    size = draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = draw(st.lists(st.integers(1, 5), min_size=size, max_size=size))
    trajectories = [torch.randn(length, 8, generator=generator) for length in lengths]
    return trajectories, draw(st.lists(st.booleans(), min_size=size, max_size=size))


@given(groups(), st.floats(0.1, 2))
def test_contrastive_is_the_formula(group: tuple[list[torch.Tensor], list[bool]], temperature: float) -> None:
    trajectories, correct = group
    expected = contrastive_by_hand(trajectories, correct, temperature)
    values = outcome_contrastive(trajectories, correct, temperature)
    assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert all(0 <= value <= 1 for value in values.tolist())


def test_a_lone_correct_rollout_is_not_its_own_positive_nor_a_lone_wrong_one_its_own_negative() -> None:
    z = [torch.eye(4)[:1], torch.eye(4)[1:2]]
    # Rollout 0 has no other correct one: 0. Rollout 1 has one positive and no other wrong one: 1.
    assert outcome_contrastive(z, [True, False], 0.5).tolist() == [0.0, 1.0]


def test_all_correct_earn_one_and_all_wrong_nothing() -> None:
    z = [torch.randn(3, 4) for _ in range(3)]
    assert outcome_contrastive(z, [True] * 3, 0.5).tolist() == [1.0] * 3
    assert outcome_contrastive(z, [False] * 3, 0.5).tolist() == [0.0] * 3


@given(groups())
def test_a_rollout_without_latents_changes_nothing_for_the_others_and_stands_at_their_mean(
    group: tuple[list[torch.Tensor], list[bool]],
) -> None:
    trajectories, correct = group
    alone = outcome_contrastive(trajectories, correct, 0.5)
    with_silent = outcome_contrastive([*trajectories, None], [*correct, True], 0.5)
    assert with_silent[:-1].tolist() == pytest.approx(alone.tolist(), abs=1e-6)
    assert float(with_silent[-1]) == pytest.approx(float(alone.mean()), abs=1e-6)


def test_no_latents_at_all_earn_nothing() -> None:
    assert outcome_contrastive([None, torch.zeros(0, 4)], [True, False], 0.5).tolist() == [0.0, 0.0]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        outcome_contrastive([None], [True], 0.0)


def test_diversity_is_the_squared_cosine_of_adjacent_means() -> None:
    # Means (1, 0), (0, 2), (3, 3): cosines 0 and 1/sqrt(2), so minus the mean of 0 and 1/2.
    spans = [torch.tensor([[2.0, 1.0], [0.0, -1.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 3.0]])]
    assert temporal_diversity(spans) == pytest.approx(-0.25)
    assert temporal_diversity(spans[:1]) == 0.0
    assert temporal_diversity([spans[1], spans[1]]) == pytest.approx(-1.0)


def test_the_sum_has_the_papers_weights_and_a_missing_second_span_earns_the_groups_mean() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    one, two = Rollout(Outcome.CORRECT, True, [x]), Rollout(Outcome.WRONG, False, [x, y])
    first, second = group_rewards([one, two], Weights())
    # cos(x, y)^2 = 1/2 for the one rollout that has two spans; the other takes it over.
    assert first["diversity"] == second["diversity"] == pytest.approx(-0.5)
    assert (first["diversity_defined"], second["diversity_defined"]) == (0.0, 1.0)
    assert first["reward"] == pytest.approx(0.9 * 1 + 0.1 * 1 + 0.2 * 0 + 0.1 * -0.5)
    assert second["reward"] == pytest.approx(0.9 * 0 + 0.1 * 0 + 0.2 * 1 + 0.1 * -0.5)
