"""The likelihood of a response with latents (docs/concepts/spans.md).

Index convention: row k belongs to slot k. ``z[k]`` is the latent in the slot, ``h[k]`` the hidden state at its feeding
position, the one right before it. All functions compute in fp32 at least, sum over the hidden dimension, and return one
number per slot; h gets gradients, z and the reference do not.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

FAMILIES = ("vmf", "gaussian", "none")


@dataclass(frozen=True)
class Family:
    """A family of densities on latents and its one parameter.

    ``vmf`` is von Mises-Fisher with concentration ``kappa``, both sides unit-normalised; ``gaussian`` an isotropic normal with
    standard deviation ``sigma``; ``none`` means that latents are context only: their density is 1 everywhere.

    Raises ValueError for another name, or if the parameter that the family needs is not positive.
    """

    name: str
    kappa: float = 0.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in FAMILIES:
            raise ValueError(f"unknown likelihood of latents {self.name!r}; there are {', '.join(FAMILIES)}")
        needed = {"vmf": "kappa", "gaussian": "sigma"}.get(self.name)
        if needed and not getattr(self, needed) > 0:
            raise ValueError(f"{self.name} needs a positive {needed}, not {getattr(self, needed)}")

    def log_density(self, h: Tensor, z: Tensor) -> Tensor:
        """Returns log p(z | h): ``[K, H], [K, H] -> [K]``. vmf omits its normaliser, which is the same for every h and z:
        ``kappa * <h / |h|, z / |z|>``, in [-kappa, kappa] (paper section 4)."""
        h, z = _wide(h), _wide(z.detach())
        match self.name:
            case "vmf":
                return self.kappa * (1 - _half_squared_chord(h, z))
            case "gaussian":
                normaliser = z.shape[-1] * math.log(self.sigma * math.sqrt(2 * math.pi))
                return -(h - z).square().sum(-1) / (2 * self.sigma**2) - normaliser
            case _:
                return h.new_zeros(len(h))

    def kl(self, h: Tensor, h_ref: Tensor) -> Tensor:
        """Returns KL(p(. | h) || p(. | h_ref)): ``[K, H], [K, H] -> [K]``, at least 0, and 0 only for equal densities.

        vmf: ``kappa * A(kappa) * (1 - cos(h, h_ref))`` with A the `mean_resultant_length`; gaussian:
        ``|h - h_ref|^2 / (2 sigma^2)``.
        """
        h, h_ref = _wide(h), _wide(h_ref.detach())
        match self.name:
            case "vmf":
                return self.kappa * mean_resultant_length(self.kappa, h.shape[-1]) * _half_squared_chord(h, h_ref)
            case "gaussian":
                return (h - h_ref).square().sum(-1) / (2 * self.sigma**2)
            case _:
                return h.new_zeros(len(h))


@lru_cache
def mean_resultant_length(kappa: float, dim: int) -> float:
    """Returns A(kappa) = I_{d/2}(kappa) / I_{d/2-1}(kappa), the length of the mean of a von Mises-Fisher in R^d.

    Evaluates the continued fraction of the ratio of Bessel functions (Amos 1974; Abramowitz and Stegun 9.1.73) from its tail:
    for orders far above kappa the terms fall off faster than geometrically.
    """
    ratio = 0.0
    for order in range(dim // 2 + int(kappa) + 60, -1, -1):
        ratio = kappa / (dim + 2 * order + kappa * ratio)
    return ratio


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _half_squared_chord(a: Tensor, b: Tensor) -> Tensor:
    """Returns 1 - cos(a, b) without cancellation: exactly 0 for equal vectors, never negative."""
    return (normalize(a, dim=-1) - normalize(b, dim=-1)).square().sum(-1) / 2
