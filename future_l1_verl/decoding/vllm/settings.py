"""What the engine and a request say about latent spans.

The token ids and the budget stand in the checkpoint's ``config.json``. ``additional_config["latent"]`` of the engine, an
optional mapping with any of ``max_latents``, ``min_latents``, ``sigma``, sets the defaults of all requests, and with ``spans``
whether there are any; ``SamplingParams.extra_args["latent"]``, with ``seed`` but without ``spans``, those of one request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from future_l1_verl.latents.tokens import LatentSettings, LatentTokens

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams

KEY = "latent"
ENGINE_OPTIONS = ("max_latents", "min_latents", "sigma", "spans")
REQUEST_OPTIONS = ("max_latents", "min_latents", "sigma", "seed")


@dataclass(frozen=True)
class SpanOptions:
    """How the spans of a request are decoded.

    A span holds at least ``min_latents`` latents, opened without a decision, and at most ``max_latents``; the two are
    equal for a fixed budget. ``sigma`` is the scale of the noise on a latent and ``seed`` selects that noise. Without
    ``spans`` the start token is never sampled: the model answers in text alone.

    Raises ValueError unless 1 <= min_latents <= max_latents, and sigma is finite and not negative.
    """

    max_latents: int
    min_latents: int = 1
    sigma: float = 0.0
    seed: int | None = None
    spans: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_latents <= self.max_latents:
            raise ValueError(f"need 1 <= min_latents <= max_latents, not {self.min_latents} and {self.max_latents}")
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be finite and not negative, not {self.sigma}")

    def updated(self, values: Mapping[str, Any], allowed: tuple[str, ...]) -> SpanOptions:
        """These options with some replaced. Raises ValueError for a name that is not in ``allowed``."""
        unknown = sorted(set(values) - set(allowed))
        if unknown:
            raise ValueError(f"unknown latent option {', '.join(unknown)}; there are {', '.join(allowed)}")
        return replace(self, **values)


@dataclass(frozen=True)
class EngineSettings:
    """Control tokens of the checkpoint and the options of a request that names none."""

    tokens: LatentTokens
    defaults: SpanOptions

    @classmethod
    def from_vllm(cls, vllm_config: VllmConfig) -> EngineSettings:
        """Raises ValueError if the checkpoint lacks control tokens or an option is unknown or impossible."""
        checkpoint = LatentSettings.from_config(vllm_config.model_config.hf_config)
        defaults = SpanOptions(checkpoint.max_latents)
        return cls(checkpoint.tokens, defaults.updated(vllm_config.additional_config.get(KEY, {}), ENGINE_OPTIONS))

    def of_request(self, params: SamplingParams) -> SpanOptions:
        """Options of one request; its noise seed is ``SamplingParams.seed`` unless its own options name one.

        vLLM adds the index of a completion to ``SamplingParams.seed`` but not to a seed among the options, so with n > 1
        only the former gives the completions different noise.

        Raises ValueError for unknown or impossible options, and for sigma > 0 without a seed: noise that nobody can
        regenerate is of no use.
        """
        given = (params.extra_args or {}).get(KEY, {})
        options = replace(self.defaults, seed=params.seed).updated(given, REQUEST_OPTIONS)
        if options.sigma > 0 and options.seed is None:
            raise ValueError("sigma > 0 needs a seed: request_options(seed=...) or SamplingParams(seed=...)")
        return options
