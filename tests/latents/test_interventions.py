"""What takes the place of a latent, one vector at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.interventions import KINDS, Intervention

H = 6


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, H, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(0, 12))
def test_given_latents_come_one_after_the_other_and_again_from_the_first(count: int, before: int) -> None:
    donor = vectors(count)
    found = Intervention("given", donor).replaced(vectors(1, 9)[0], list(vectors(before, 1)), min(before, 2), 50)
    assert torch.equal(found, donor[before - before // count * count])


@given(st.integers(0, 2**31), st.integers(0, 4096))
def test_noise_has_the_latents_length_and_no_direction_of_its_own(seed: int, position: int) -> None:
    latent, other = vectors(1, 2)[0] * 7, vectors(1, 3)[0]
    noise = Intervention("noise", seed=seed)
    found = noise.replaced(latent, [], 0, position)
    assert found.norm() == pytest.approx(float(latent.norm()), rel=1e-5)
    assert torch.allclose(found / found.norm(), noise.replaced(other, [], 0, position) / other.norm(), atol=1e-5)
    assert not torch.allclose(found, noise.replaced(latent, [], 0, position + 1))
    assert not torch.allclose(found, Intervention("noise", seed=seed + 1).replaced(latent, [], 0, position))


@given(st.integers(0, 4), st.integers(0, 4))
def test_a_frozen_span_repeats_its_own_first_latent(earlier: int, in_span: int) -> None:
    before = list(vectors(earlier + in_span))
    latent = vectors(1, 5)[0]
    found = Intervention("freeze").replaced(latent, before, in_span, 30)
    assert torch.equal(found, before[earlier] if in_span else latent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_replacement_keeps_dtype_and_width(kind: str, dtype: torch.dtype) -> None:
    latents = vectors(2) if kind == "given" else None
    found = Intervention(kind, latents).replaced(vectors(1, 4)[0].to(dtype), [], 0, 3)
    assert (found.dtype, found.shape) == (dtype, (H,))
    assert bool((found == 0).all()) == (kind == "zero")


@pytest.mark.parametrize(
    ("kind", "latents", "reason"),
    [
        ("swap", None, "one of given, noise"),
        ("given", None, "belong to the intervention 'given'"),
        ("zero", vectors(1), "belong to the intervention 'given'"),
        ("given", torch.empty(0, H), "T > 0"),
        ("given", vectors(1)[0], "T, H"),
    ],
)
def test_impossible_interventions_are_refused(kind: str, latents: torch.Tensor | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Intervention(kind, latents)
