"""Standard-normal noise that is a pure function of (seed, position, dimension).

A stochastic latent is ``z = h + sigma * eps``. ``eps`` is a hash of three numbers and does not come from a generator, so it
does not depend on the rest of the batch, on preemption or on the tensor-parallel rank, and a trainer can compute it again
from a recorded rollout.

The hash is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"): every pair of seed
and position starts a separate stream, two outputs of which give one normal number (Box and Muller 1958).
"""

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """Returns the int64 with the bits of an unsigned 64-bit constant; torch has no arithmetic on uint64."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)
_UNIFORM_BITS = 24  # what a float32 holds exactly


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Returns the logical shift; torch's ``>>`` copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Applies SplitMix64's finaliser to int64; products wrap modulo 2**64."""
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


def _uniform(x: Tensor) -> Tensor:
    """Returns the top bits of int64 ``x`` as float32 in the open interval (0, 1)."""
    return (_shift_right(x, 64 - _UNIFORM_BITS).to(torch.float32) + 0.5) / (1 << _UNIFORM_BITS)


def standard_normal(seeds: Tensor, positions: Tensor, size: int) -> Tensor:
    """Returns the noise of one latent per row.

    ``seeds`` and ``positions`` are int64 ``[n]`` on one device; a position is the absolute index of the slot in prompt
    plus response. Returns float32 ``[n, size]``; dimension ``d`` of a row is the same for every ``size > d``. The integers
    are equal on every device, the floats to within the rounding of its ``log`` and ``cos``.
    """
    stream = _mix(_mix(seeds) + positions * _GOLDEN)[:, None]
    dimension = torch.arange(size, device=seeds.device, dtype=torch.int64)
    first = _uniform(_mix(stream + (2 * dimension + 1) * _GOLDEN))
    second = _uniform(_mix(stream + (2 * dimension + 2) * _GOLDEN))
    return torch.sqrt(-2.0 * torch.log(first)) * torch.cos(2.0 * math.pi * second)


def add_noise(hidden: Tensor, sigma: Tensor | float, seeds: Tensor, positions: Tensor) -> Tensor:
    """Returns ``z = h + sigma * eps``, summed in float32 and rounded once.

    ``hidden`` is ``[n, H]``, ``sigma`` a number or float32 ``[n]``; see ``standard_normal`` for the others. Returns
    ``[n, H]`` in the dtype of ``hidden``; a row with sigma 0 is returned bit for bit.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=hidden.device)
    noise = standard_normal(seeds, positions, hidden.shape[-1])
    return (hidden.to(torch.float32) + sigma.reshape(-1, 1) * noise).to(hidden.dtype)
