"""Noise that is a pure function of (seed, position, dimension)."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl.latents.noise import _mix, add_noise, standard_normal

INT64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)


def test_the_hash_is_splitmix64() -> None:
    # First outputs of the reference generator with seed 1234567 (https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64).
    states = 1234567 + torch.tensor([1, 2, 3]) * (0x9E3779B97F4A7C15 - (1 << 64))
    outputs = [value % (1 << 64) for value in _mix(states).tolist()]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_moments_are_those_of_a_standard_normal() -> None:
    count, size = 2000, 512
    noise = standard_normal(torch.full((count,), 7), torch.arange(count), size).double()
    n = noise.numel()
    # Five standard errors: var(x) = 1, var(x^2) = 2, var(x^4) = 105 - 9 = 96.
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.pow(2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs(noise.pow(4).mean() - 3) < 5 * math.sqrt(96 / n)
    # P(|x| < 1) = erf(1 / sqrt 2) = 0.6827
    assert abs((noise.abs() < 1).double().mean() - 0.682689) < 5 * 0.5 / math.sqrt(n)


def test_neighbours_are_uncorrelated() -> None:
    count, size = 2000, 512
    positions, seeds = torch.arange(count), torch.full((count,), 3)
    noise = standard_normal(seeds, positions, size)
    bound = 5 / math.sqrt(count * (size - 1))
    for a, b in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[1:], noise[:-1]),
        (noise, standard_normal(seeds + 1, positions, size)),
    ):
        assert abs((a * b).mean()) < bound


@given(
    rows=st.lists(st.tuples(INT64, st.integers(0, 2**31)), min_size=1, max_size=6),
    size=st.integers(1, 40),
    order=st.randoms(),
)
@settings(max_examples=50, deadline=None)
def test_a_row_depends_on_its_own_seed_and_position_only(rows: list[tuple[int, int]], size: int, order: object) -> None:
    shuffled = rows + rows
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    seeds, positions = torch.tensor(shuffled).unbind(1)
    batch = standard_normal(seeds, positions, size + 5)
    assert torch.isfinite(batch).all()
    for k, (seed, position) in enumerate(shuffled):
        alone = standard_normal(torch.tensor([seed]), torch.tensor([position]), size)
        assert torch.equal(alone[0], batch[k, :size])


def test_added_noise_is_scaled_and_rounded_once() -> None:
    hidden = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    seeds, positions, sigma = torch.tensor([5, 5]), torch.tensor([10, 10]), torch.tensor([0.0, 0.5])
    z = add_noise(hidden, sigma, seeds, positions)
    assert z.dtype is torch.bfloat16
    assert torch.equal(z[0], hidden[0])
    assert torch.equal(z[1], (hidden[1].float() + 0.5 * standard_normal(seeds, positions, 3)[1]).bfloat16())
