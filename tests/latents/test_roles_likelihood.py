"""The role table in the training passes: which log-prob entry each role has."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.likelihood import decision_entries, log_complement, log_prob_entries
from future_l1_verl.latents.spans import Role


@given(st.floats(-50, -1e-4))
def test_log_complement_is_log_of_one_minus_p(log_p: float) -> None:
    exact = math.log1p(-math.exp(log_p)) if log_p < -0.6 else math.log(-math.expm1(log_p))
    assert float(log_complement(torch.tensor(log_p))) == pytest.approx(exact, rel=1e-4, abs=1e-30)


@pytest.mark.parametrize("log_p", [0.0, -1e-45, -1e-30, -104.0, -1e30])
def test_log_complement_and_its_gradient_are_finite_at_the_ends(log_p: float) -> None:
    x = torch.tensor(log_p, requires_grad=True)
    y = log_complement(x)
    y.backward()
    assert torch.isfinite(y) and torch.isfinite(x.grad)


def test_entries_follow_the_role_table() -> None:
    """reference-audit.md, rows 3 and 4: a decision's gradient is its own, and what was forced has none."""
    roles = torch.tensor([Role.TEXT, Role.STOP, Role.LATENT, Role.LATENT_FORCED, Role.STOP_FORCED])
    log_probs = torch.tensor([-1.0, -2.0, math.log(0.25), -3.0, -4.0], requires_grad=True)
    density = torch.tensor([0.0, 0.0, 0.5, 0.7, 0.0])
    entries = log_prob_entries(roles, log_probs, density)
    assert entries.tolist() == pytest.approx([-1.0, -2.0, math.log(0.75) + 0.5, 0.7, 0.0])
    assert decision_entries(roles, log_probs).tolist() == pytest.approx([-1.0, -2.0, math.log(0.75), 0.0, 0.0])
    entries.sum().backward()
    # d/dx log(1 - e^x) = -p / (1 - p) = -1/3; forced tokens pull on no logit.
    assert log_probs.grad.tolist() == pytest.approx([1.0, 1.0, -1 / 3, 0.0, 0.0])
