"""The reward parts of a group and their sum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.latent import ContrastiveCase
from future_l1_verl.rewards.total import Rollout, group_rewards
from future_l1_verl.rewards.weights import PARTS, Weights

RIGHT, WRONG, UNPARSED = Grade(True, True), Grade(False, True), Grade(False, False)
X, Y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
CONTRASTIVE, DIVERSITY = PARTS.index("contrastive"), PARTS.index("diversity")


def test_the_sum_has_the_papers_weights_and_a_missing_second_span_earns_the_groups_mean() -> None:
    rewards = group_rewards([Rollout(RIGHT, True, [X]), Rollout(WRONG, False, [X, Y])], Weights())
    # cos(x, y)^2 = 1/2 for the one rollout that has two spans; the other takes it over.
    assert rewards.parts[:, DIVERSITY].tolist() == pytest.approx([-0.5, -0.5])
    assert rewards.diverse.tolist() == [False, True]
    assert rewards.case.tolist() == [ContrastiveCase.NO_POSITIVE, ContrastiveCase.NO_NEGATIVE]
    assert rewards.total.tolist() == pytest.approx(
        [0.9 * 1 + 0.1 * 1 + 0.2 * 0 + 0.1 * -0.5, 0.9 * 0 + 0.1 * 0 + 0.2 * 1 + 0.1 * -0.5]
    )


def test_penalties_are_columns_of_their_own_and_leave_accuracy_alone() -> None:
    """Row 21 of docs/differences.md: there repetition turns accuracy into -1."""
    rewards = group_rewards([Rollout(RIGHT, True, [], -0.5, -0.25)], Weights(repetition=0.4, overlong=1.0))
    assert dict(zip(PARTS, rewards.parts[0].tolist(), strict=True)) == {
        "accuracy": 1.0, "format": 1.0, "contrastive": 0.0, "diversity": 0.0, "repetition": -0.5, "overlong": -0.25
    }  # fmt: skip
    assert float(rewards.total[0]) == pytest.approx(0.9 + 0.1 - 0.4 * 0.5 - 0.25)


def test_no_rollouts_have_no_rewards() -> None:
    rewards = group_rewards([], Weights())
    assert rewards.parts.shape == (0, len(PARTS)) and rewards.total.shape == (0,)


def test_unparsed_earns_what_wrong_earns() -> None:
    unparsed, wrong = (group_rewards([Rollout(grade, True, [])], Weights()).total for grade in (UNPARSED, WRONG))
    assert unparsed.tolist() == wrong.tolist() == pytest.approx([0.1])


def test_a_rollout_without_a_verdict_is_not_counted_and_earns_nothing() -> None:
    """Row 22: an outage is neither right nor wrong."""
    rewards = group_rewards([Rollout(None, True, [X, Y], -1.0), Rollout(RIGHT, True, [X])], Weights(repetition=1.0))
    assert rewards.counted.tolist() == [False, True]
    assert rewards.parts[0].tolist() == [0.0] * len(PARTS)
    assert rewards.parts[1, DIVERSITY] == 0.0  # nobody who counts has two spans


@st.composite
def rollouts(draw: st.DrawFn) -> list[Rollout]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spans = draw(st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=6))
    grades = st.sampled_from([RIGHT, WRONG, UNPARSED])
    return [Rollout(draw(grades), False, [torch.randn(n, 4, generator=generator) for n in lengths]) for lengths in spans]


@given(rollouts())
def test_withholding_all_spans_gives_the_mean_of_those_who_have_them(group: list[Rollout]) -> None:
    """Row 17: there an answer without latents scores 0 and others more, and one span gives R_div its maximum."""
    silent = group_rewards([*group, Rollout(RIGHT, False, [])], Weights())
    for part, defined in ((CONTRASTIVE, silent.case != ContrastiveCase.UNDEFINED), (DIVERSITY, silent.diverse)):
        expected = float(silent.parts[defined, part].mean()) if defined.any() else 0.0
        assert float(silent.parts[-1, part]) == pytest.approx(expected)
