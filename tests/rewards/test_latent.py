"""R_ctr and R_div against the formulas of paper section 4, written out with loops."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from future_l1_verl.rewards.latent import ContrastiveCase, contrast, outcome_contrastive, similarities, temporal_diversity

Group = tuple[list[Tensor | None], list[bool | None]]


def similarity_by_hand(a: Tensor, b: Tensor) -> float:
    steps = min(len(a), len(b))
    cosines = [float(a[t] @ b[t] / (a[t].norm() * b[t].norm())) for t in range(steps)]
    return sum((1 + c) / 2 for c in cosines) / steps


def contrastive_by_hand(
    z: list[Tensor | None], correct: list[bool | None], temperature: float
) -> list[tuple[float, ContrastiveCase]]:
    takes_part = [latents is not None and len(latents) > 0 and outcome is not None for latents, outcome in zip(z, correct)]  # noqa: B905
    values = []
    for i in range(len(z)):
        if not takes_part[i]:
            values.append((0.0, ContrastiveCase.UNDEFINED))
            continue
        others = [j for j in range(len(z)) if j != i and takes_part[j]]
        positives = [similarity_by_hand(z[i], z[j]) for j in others if correct[j]]
        negatives = [similarity_by_hand(z[i], z[j]) for j in others if not correct[j]]
        if not positives:
            values.append((0.0, ContrastiveCase.NO_POSITIVE))
            continue
        top = math.exp(max(positives) / temperature)
        value = top / (top + sum(math.exp(s / temperature) for s in negatives))
        values.append((value, ContrastiveCase.CONTRAST if negatives else ContrastiveCase.NO_NEGATIVE))
    return values


@st.composite
def groups(draw: st.DrawFn, outcomes: st.SearchStrategy = st.sampled_from([True, False, None])) -> Group:  # noqa: B008
    size = draw(st.integers(0, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = draw(st.lists(st.sampled_from([None, 0, 1, 2, 5]), min_size=size, max_size=size))
    trajectories = [None if length is None else torch.randn(length, 8, generator=generator) for length in lengths]
    return trajectories, draw(st.lists(outcomes, min_size=size, max_size=size))


def r_ctr(z: list[Tensor | None], correct: list[bool | None], temperature: float = 0.5) -> list[float]:
    return outcome_contrastive(z, correct, temperature).tolist()


@given(groups(), st.floats(0.1, 2))
def test_contrastive_is_the_formula(group: Group, temperature: float) -> None:
    """Row 16 of docs/differences.md: without positives 0, without negatives 1, always in [0, 1], and the case is known."""
    expected = contrastive_by_hand(*group, temperature)
    values = outcome_contrastive(*group, temperature)
    assert (values.dtype, values.shape) == (torch.float32, (len(group[0]),))
    same, cases = contrast(similarities(group[0]), group[1], temperature)
    assert torch.equal(values, same)
    assert values.tolist() == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert cases.tolist() == [case for _, case in expected]
    assert all(0 <= value <= 1 for value in values.tolist())


def test_a_lone_correct_rollout_is_not_its_own_positive_nor_a_lone_wrong_one_its_own_negative() -> None:
    """Row 15."""
    z = [torch.eye(4)[:1], torch.eye(4)[1:2]]
    # Rollout 0 has no other correct one: 0. Rollout 1 has one positive and no other wrong one: 1.
    assert r_ctr(z, [True, False]) == [0.0, 1.0]


def test_only_a_copy_of_oneself_gives_similarity_one() -> None:
    """Row 15: with s = 1 for the copy and s = 1/2 for the orthogonal wrong one, e^2 / (e^2 + e^1)."""
    z = [torch.eye(4)[:1], torch.eye(4)[:1], torch.eye(4)[1:2]]
    assert r_ctr(z, [True, True, False])[0] == pytest.approx(math.e**2 / (math.e**2 + math.e))
    # An orthogonal positive instead: e / (e + e).
    z[1] = torch.eye(4)[2:3]
    assert r_ctr(z, [True, True, False])[0] == pytest.approx(0.5)


def test_all_correct_earn_one_and_all_wrong_nothing() -> None:
    """Row 16."""
    z = [torch.randn(3, 4) for _ in range(3)]
    assert r_ctr(z, [True] * 3) == [1.0] * 3
    assert r_ctr(z, [False] * 3) == [0.0] * 3


@given(groups(), st.sampled_from([True, False, None]))
def test_a_rollout_without_latents_changes_nothing_for_the_others(group: Group, outcome: bool | None) -> None:
    trajectories, correct = group
    alone = r_ctr(trajectories, correct)
    assert r_ctr([*trajectories, None], [*correct, outcome])[:-1] == pytest.approx(alone, abs=1e-6)


@given(groups(), st.integers(0, 1000))
def test_a_rollout_without_a_verdict_changes_nothing_for_the_others(group: Group, seed: int) -> None:
    trajectories, correct = group
    extra = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    assert r_ctr([*trajectories, extra], [*correct, None])[:-1] == pytest.approx(r_ctr(trajectories, correct), abs=1e-6)


def test_no_rollouts_and_no_latents_earn_nothing() -> None:
    assert r_ctr([], []) == []
    assert r_ctr([None, torch.zeros(0, 4)], [True, False]) == [0.0, 0.0]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        r_ctr([None], [True], 0.0)
    with pytest.raises(ValueError, match="1 rollouts but 2 outcomes"):
        r_ctr([None], [True, False])
    with pytest.raises(ValueError, match="latents of rollout 1 of the group are not finite"):
        r_ctr([torch.ones(1, 2), torch.tensor([[1.0, math.nan]])], [True, False])


def diversity_by_hand(spans: list[Tensor]) -> float:
    if len(spans) < 2:
        return 0.0
    means = [span.mean(0) for span in spans]
    squares = [float(a @ b / (a.norm() * b.norm())) ** 2 for a, b in pairwise(means)]
    return -sum(squares) / len(squares)


@given(st.lists(st.integers(1, 4), max_size=5), st.integers(0, 1000))
def test_diversity_is_the_formula(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spans = [torch.randn(length, 8, generator=generator) for length in lengths]
    assert temporal_diversity(spans) == pytest.approx(diversity_by_hand(spans), abs=1e-5)
    assert -1 <= temporal_diversity(spans) <= 0


def test_diversity_is_the_squared_cosine_of_adjacent_means() -> None:
    # Means (1, 0), (0, 2), (3, 3): cosines 0 and 1/sqrt(2), so minus the mean of 0 and 1/2.
    spans = [torch.tensor([[2.0, 1.0], [0.0, -1.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 3.0]])]
    assert temporal_diversity(spans) == pytest.approx(-0.25)
    assert temporal_diversity([spans[1], spans[1]]) == pytest.approx(-1.0)
