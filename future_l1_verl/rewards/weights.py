"""The parts of a reward and their weights (paper section 4)."""

from dataclasses import dataclass

PARTS = ("accuracy", "format", "contrastive", "diversity", "repetition", "overlong")
LATENT_PARTS = ("contrastive", "diversity")
"""The parts that depend on latents; they may be undefined for a rollout."""


@dataclass(frozen=True)
class Weights:
    """The lambda of each part; the defaults are those of the paper (section 4)."""

    accuracy: float = 0.9
    format: float = 0.1
    contrastive: float = 0.2
    diversity: float = 0.1
    repetition: float = 0.0
    overlong: float = 0.0

    def in_order(self) -> list[float]:
        """Returns the weights in the order of `PARTS`."""
        return [getattr(self, part) for part in PARTS]
