"""The part of the section ``latent`` of a config tree that the engine uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from future_l1_verl.latents.errors import ERRORS
from future_l1_verl.latents.likelihood import Family
from future_l1_verl.modeling.latent_vl import Objective


@dataclass(frozen=True)
class EngineSettings:
    """The engine's settings. Both trees pass their section as ``model.override_config.latent``; its other keys are not used.

    Stage 1 has ``error``, ``targets`` and ``unit_targets``: the objective of a latent, and how future frames become latents.
    Stage 2 has ``likelihood`` with ``kappa`` and ``sigma``, ``spans`` and ``min_latents``. ``freeze_tower`` is for the
    vision tower's own parameters, ``freeze_merger`` for those of its mergers, which turn its features into embeddings.
    """

    error: str | None = None
    targets: str = "resize"
    unit_targets: bool = False
    likelihood: str | None = None
    kappa: float = 0.0
    sigma: float = 0.0
    spans: bool = True
    min_latents: int = 1
    freeze_tower: bool = True
    freeze_merger: bool = True

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> EngineSettings:
        return cls(**{field.name: section[field.name] for field in fields(cls) if field.name in section})

    @property
    def objective(self) -> Objective:
        """The error of stage 1, or the log-density of stage 2."""
        return ERRORS[self.error] if self.error is not None else self._family.log_density

    @property
    def divergence(self) -> Objective | None:
        """The KL of stage 2's densities; stage 1 has no reference."""
        return None if self.error is not None else self._family.kl

    @property
    def _family(self) -> Family:
        return Family(self.likelihood, self.kappa, self.sigma)
