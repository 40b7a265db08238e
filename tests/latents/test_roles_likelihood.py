"""log(1 - p) of a normalised distribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.likelihood import log_not


@given(st.floats(-60, 60))
def test_log_not_is_exact_near_0_and_near_1_with_a_finite_gradient(gap: float) -> None:
    # Logits ``gap`` for the token and 0 for two others: 1 - p = 2 / (e^gap + 2), which 1 - exp(log p) loses for a large gap.
    logits = torch.tensor([0.0, gap, 0.0], requires_grad=True)
    value = log_not(logits.log_softmax(-1), 1)
    assert float(value) == pytest.approx(math.log(2) - math.log(math.exp(gap) + 2), rel=1e-5, abs=1e-6)
    value.backward()
    # d log(1 - p) / d logit = -p.
    assert float(logits.grad[1]) == pytest.approx(-math.exp(gap) / (math.exp(gap) + 2), rel=1e-4, abs=1e-6)
