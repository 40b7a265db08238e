"""The role table in the training passes: which log-prob entry each role has."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.likelihood import decision_entries, log_not
from future_l1_verl.latents.spans import Role


@given(st.floats(-60, 60))
def test_log_not_is_exact_near_0_and_near_1_with_a_finite_gradient(gap: float) -> None:
    # Logits ``gap`` for the token and 0 for two others: 1 - p = 2 / (e^gap + 2), which 1 - exp(log p) loses for a large gap.
    logits = torch.tensor([0.0, gap, 0.0], requires_grad=True)
    value = log_not(logits.log_softmax(-1), 1)
    assert float(value) == pytest.approx(math.log(2) - math.log(math.exp(gap) + 2), rel=1e-5, abs=1e-6)
    value.backward()
    # d log(1 - p) / d logit = -p.
    assert float(logits.grad[1]) == pytest.approx(-math.exp(gap) / (math.exp(gap) + 2), rel=1e-4, abs=1e-6)


def test_entries_follow_the_role_table() -> None:
    """reference-audit.md, rows 3 and 4: a decision's gradient is its own, and what was forced has none."""
    roles = torch.tensor([Role.TEXT, Role.STOP, Role.LATENT, Role.LATENT_FORCED, Role.STOP_FORCED])
    log_probs = torch.tensor([-1.0, -2.0, -9.0, -3.0, -4.0], requires_grad=True)
    log_go_on = torch.tensor([-9.0, -9.0, -0.25, -9.0, -9.0], requires_grad=True)
    entries = decision_entries(roles, log_probs, log_go_on)
    assert entries.tolist() == [-1.0, -2.0, -0.25, 0.0, 0.0]
    entries.sum().backward()
    assert log_probs.grad.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert log_go_on.grad.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
