import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from future_l1_verl.latents import likelihood


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 16, generator=generator), torch.randn(5, 16, generator=generator)


@given(st.integers(0, 1000), st.floats(0.01, 10), st.floats(0.1, 100))
def test_vmf_is_bounded_by_kappa_and_blind_to_scale(seed: int, kappa: float, scale: float) -> None:
    h, z = pair(seed)
    density = likelihood.vmf(kappa)(h, z)
    assert density.abs().max() <= kappa * (1 + 1e-6)
    torch.testing.assert_close(likelihood.vmf(kappa)(scale * h, z / scale), density, atol=1e-5 * kappa, rtol=1e-4)


def test_vmf_is_kappa_where_the_latent_is_the_hidden_state() -> None:
    h, _ = pair(0)
    torch.testing.assert_close(likelihood.vmf(0.01)(h, h), torch.full((5,), 0.01))


@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_gaussian_is_the_normal_density(seed: int, sigma: float) -> None:
    h, z = pair(seed)
    torch.testing.assert_close(likelihood.gaussian(sigma)(h, z), Normal(h, sigma).log_prob(z).sum(-1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("density", [likelihood.vmf(1.0), likelihood.gaussian(1.0)])
def test_gradient_reaches_the_hidden_state_and_never_the_latent(density: likelihood.Density) -> None:
    h, z = (x.requires_grad_() for x in pair(1))
    density(h, z).sum().backward()
    assert h.grad.abs().max() > 0 and z.grad is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_concentration_that_is_not_positive_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="kappa"):
        likelihood.vmf(bad)
