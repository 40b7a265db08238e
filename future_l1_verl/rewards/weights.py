"""The parts of a reward and what each of them weighs (paper section 4)."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("accuracy", "format", "contrastive", "diversity", "repetition", "overlong")
LATENT_PARTS = ("contrastive", "diversity")
"""The parts that latents earn; they may be not defined for a rollout."""


@dataclass(frozen=True)
class Weights:
    """The lambda of each part; those of the paper (section 4) by default."""

    accuracy: float = 0.9
    format: float = 0.1
    contrastive: float = 0.2
    diversity: float = 0.1
    repetition: float = 0.0
    overlong: float = 0.0

    def in_order(self) -> list[float]:
        """The weights in the order of `PARTS`."""
        return [getattr(self, part) for part in PARTS]
