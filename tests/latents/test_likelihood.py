import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from future_l1_verl.latents.likelihood import Family, mean_resultant_length

FAMILIES = [Family("vmf", kappa=1.0), Family("gaussian", sigma=1.0)]


def pair(seed: int, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, dim, generator=generator), torch.randn(5, dim, generator=generator)


@given(st.integers(0, 1000), st.floats(0.01, 10), st.floats(0.1, 100))
def test_vmf_is_bounded_by_kappa_and_blind_to_scale(seed: int, kappa: float, scale: float) -> None:
    """docs/differences.md, row 5: the published one is unbounded and grows with the norm of h."""
    h, z = pair(seed)
    density = Family("vmf", kappa=kappa).log_density(h, z)
    assert density.abs().max() <= kappa * (1 + 1e-6)
    torch.testing.assert_close(
        Family("vmf", kappa=kappa).log_density(scale * h, z / scale), density, atol=1e-5 * kappa, rtol=1e-4
    )
    torch.testing.assert_close(density, kappa * torch.cosine_similarity(h, z, dim=-1), atol=1e-5 * kappa, rtol=1e-4)


def test_vmf_is_kappa_where_the_latent_is_the_hidden_state() -> None:
    """Row 2: a deterministic latent is the hidden state at its feeding position, and nothing is likelier."""
    h, _ = pair(0)
    assert Family("vmf", kappa=0.01).log_density(h, h).tolist() == pytest.approx([0.01] * 5, rel=1e-7)


@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_gaussian_is_the_normal_density_and_its_kl_that_of_normals(seed: int, sigma: float) -> None:
    h, z = pair(seed)
    torch.testing.assert_close(
        Family("gaussian", sigma=sigma).log_density(h, z), Normal(h, sigma).log_prob(z).sum(-1), rtol=1e-4, atol=1e-3
    )
    expected = kl_divergence(Normal(h, sigma), Normal(z, sigma)).sum(-1)
    torch.testing.assert_close(Family("gaussian", sigma=sigma).kl(h, z), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.01, 1.0, 5.0, 50.0])
def test_the_mean_resultant_length_on_the_sphere_in_three_dimensions(kappa: float) -> None:
    # There the ratio of Bessel functions is elementary: coth(kappa) - 1 / kappa; for small kappa by its series.
    closed = 1 / math.tanh(kappa) - 1 / kappa if kappa > 0.1 else kappa / 3 - kappa**3 / 45
    assert mean_resultant_length(kappa, 3) == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize(("kappa", "dim"), [(0.01, 4096), (100.0, 4096), (10_000.0, 4096)])
def test_the_mean_resultant_length_in_many_dimensions_lies_within_its_bounds(kappa: float, dim: int) -> None:
    # Amos 1974, with order v = dim/2 - 1:
    # x / (v + 1 + sqrt(x^2 + (v + 1)^2)) <= I_{v+1}(x) / I_v(x) <= x / (v + sqrt(x^2 + (v + 2)^2)).
    order = dim / 2 - 1
    low = kappa / (order + 1 + math.hypot(kappa, order + 1))
    high = kappa / (order + math.hypot(kappa, order + 2))
    assert low * (1 - 1e-9) <= mean_resultant_length(kappa, dim) <= high * (1 + 1e-9)


def test_the_kl_of_vmf_is_that_of_its_samples() -> None:
    # On the circle vMF is von Mises: KL = E[log p - log q] by quadrature over the angle, normalisers cancel.
    kappa, angle = 2.0, 1.1
    h, ref = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    theta = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)[:-1]
    p = (kappa * torch.cos(theta)).exp()
    expected = float((p * kappa * (torch.cos(theta) - torch.cos(theta - angle))).sum() / p.sum())
    assert float(Family("vmf", kappa=kappa).kl(3 * h, 0.5 * ref)) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 1000), st.sampled_from(FAMILIES))
def test_the_kl_is_not_negative_and_0_only_for_the_same_density(seed: int, family: Family) -> None:
    """Row 5: the published one is unbounded below."""
    h, ref = pair(seed)
    assert (family.kl(h, ref) > 0).all()
    assert family.kl(h, h).tolist() == [0.0] * 5
    parallel = family.kl(h, 4 * h)
    assert (parallel == 0).all() if family.name == "vmf" else (parallel > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_reaches_the_hidden_state_and_never_the_latent_nor_the_reference(family: Family) -> None:
    for function in (family.log_density, family.kl):
        h, z = (x.requires_grad_() for x in pair(1))
        function(h, z).sum().backward()
        assert h.grad.abs().max() > 0 and z.grad is None


@given(st.integers(0, 1000))
def test_half_precision_is_computed_in_fp32(seed: int) -> None:
    h, z = (x.bfloat16() for x in pair(seed, 4096))
    for family in FAMILIES:
        torch.testing.assert_close(family.log_density(h, z), family.log_density(h.float(), z.float()), rtol=0, atol=0)
        assert family.kl(h, z).dtype == torch.float32


def test_without_a_density_latents_are_context_only() -> None:
    h, z = pair(2)
    assert Family("none").log_density(h, z).tolist() == Family("none").kl(h, z).tolist() == [0.0] * 5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
@pytest.mark.parametrize(("family", "parameter"), [("vmf", "kappa"), ("gaussian", "sigma")])
def test_a_parameter_that_is_not_positive_is_refused(family: str, parameter: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{family} needs a positive {parameter}"):
        Family(family, **{parameter: bad})


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown likelihood of latents 'laplace'; there are vmf, gaussian, none"):
        Family("laplace")
