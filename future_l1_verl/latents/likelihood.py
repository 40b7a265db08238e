"""Log-densities of a latent given the hidden state that feeds it (design.md, "Span layout of a response").

Each is a function ``(h [K, H], z [K, H]) -> [K]``, computed in fp32; gradients reach h, never z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

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


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")
