"""The likelihood of a response with latents (design.md, "Span layout of a response").

The density of a latent given the hidden state that feeds it is a function ``(h [K, H], z [K, H]) -> [K]`` in fp32; its
gradients reach h, never z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from future_l1_verl.latents.spans import Role

Density = Callable[[Tensor, Tensor], Tensor]


def vmf(kappa: float) -> Density:
    """von Mises-Fisher, both sides unit-normalised, up to its constant: ``kappa * <h / |h|, z / |z|>`` (paper section 4)."""
    _require_positive("kappa", kappa)

    def log_density(h: Tensor, z: Tensor) -> Tensor:
        return kappa * torch.cosine_similarity(h.float(), z.detach().float(), dim=-1)

    return log_density


def gaussian(sigma: float) -> Density:
    """Isotropic normal around h with standard deviation ``sigma``; summed over dimensions."""
    _require_positive("sigma", sigma)

    def log_density(h: Tensor, z: Tensor) -> Tensor:
        squared = (h.float() - z.detach().float()).square().sum(-1)
        return -squared / (2 * sigma**2) - z.shape[-1] * math.log(sigma * math.sqrt(2 * math.pi))

    return log_density


def none() -> Density:
    """Latents are context only: their density is 1 everywhere."""
    return lambda h, z: torch.zeros(len(z), device=z.device)


def density(name: str, kappa: float | None = None, sigma: float | None = None) -> Density:
    """The density that the config tree names: ``vmf`` (needs kappa), ``gaussian`` (needs sigma) or ``none``."""
    match name:
        case "vmf":
            return vmf(kappa)
        case "gaussian":
            return gaussian(sigma)
        case "none":
            return none()
        case _:
            raise ValueError(f"unknown likelihood of latents {name!r}; use vmf, gaussian or none")


def log_prob_entries(roles: Tensor, log_probs: Tensor, log_density: Tensor) -> Tensor:
    """The role table of design.md, all ``[N]``: ``log_probs`` is log p(token) at text and stops, log p(end) at slots."""
    free = roles == Role.LATENT
    slot = free | (roles == Role.LATENT_FORCED)
    entries = torch.where(slot | (roles == Role.STOP_FORCED), 0.0, log_probs)
    return entries + torch.where(free, log_complement(torch.where(free, log_probs, -1.0)), 0.0) + log_density


def log_complement(log_probs: Tensor) -> Tensor:
    """``log(1 - exp(log_probs))`` in fp32, finite and with finite gradients for every ``log_probs <= 0``.

    Of the two usual forms each is exact on its side of log 2 (Maechler, "Accurately computing log(1 - exp(-|a|))").
    """
    x = log_probs.float().clamp(max=-torch.finfo(torch.float32).tiny)
    small = x > -0.6931
    near_one = torch.log(-torch.expm1(torch.where(small, x, -0.5)))
    near_zero = torch.log1p(-torch.exp(torch.where(small, -1.0, x)))
    return torch.where(small, near_one, near_zero)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")
