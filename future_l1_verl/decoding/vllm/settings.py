"""The options of latent spans, of an engine and of a request.

The token ids and the budget are in the checkpoint's ``config.json``. ``additional_config["latent"]`` of the engine, an
optional mapping with any of ``ENGINE_OPTIONS``, sets the defaults of all requests; ``SamplingParams.extra_args["latent"]``,
with any of ``REQUEST_OPTIONS``, changes them for one request. There it may be JSON as well: the chat API (``vllm_xargs``) has
no nested values. ``extra_args["return_latents"]``, true or false, is a separate entry.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from torch import Tensor

from future_l1_verl.decoding.vllm.wire import from_text
from future_l1_verl.latents.interventions import KINDS, Intervention
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams

LATENT_KEY = "latent"
RETURN_KEY = "return_latents"
PROMPT = "prompt_latents"
LARGEST_SIGMA = 1000  # half precision can represent such noise
ENGINE_OPTIONS = ("max_latents", "min_latents", "sigma", "spans", RETURN_KEY)
REQUEST_OPTIONS = ("max_latents", "min_latents", "sigma", "seed", "intervene", "given", PROMPT)


@dataclass(frozen=True)
class SpanOptions:
    """The options of the spans of a request.

    A span holds at least ``min_latents`` latents, opened without a decision, and at most ``max_latents``; the two are
    equal for a fixed budget. ``sigma`` is the scale of the noise on a latent and ``seed`` selects that noise. Without
    ``spans`` the start token is never sampled: the model answers only in text. ``return_latents`` returns them to the client.
    ``intervention`` replaces them. ``prompt_latents`` ``[k, H]`` are those of the slots in the prompt, which then ends with a
    response to be continued, possibly inside a span.

    Raises ValueError unless 1 <= min_latents <= max_latents < 2**31 and 0 <= sigma <= 1000, and for values that are not
    numbers: they may come from a client, and in the worker, where they become tensors, an error ends the engine.
    """

    max_latents: int
    min_latents: int = 1
    sigma: float = 0.0
    seed: int | None = None
    spans: bool = True
    return_latents: bool = False
    intervention: Intervention | None = None
    prompt_latents: Tensor | None = None

    def __post_init__(self) -> None:
        whole = {"max_latents": (self.max_latents, 31), "min_latents": (self.min_latents, 31), "seed": (self.seed or 0, 63)}
        for name, (value, bits) in whole.items():
            if type(value) is not int or not -(2**bits) <= value < 2**bits:
                raise ValueError(f"{name} must be a whole number of at most {bits} bits, not {shown(value)}")
        if type(self.sigma) not in (int, float):
            raise ValueError(f"sigma must be a number, not {shown(self.sigma)}")
        if not 1 <= self.min_latents <= self.max_latents:
            raise ValueError(f"need 1 <= min_latents <= max_latents, not {self.min_latents} and {self.max_latents}")
        if not 0 <= self.sigma <= LARGEST_SIGMA:
            raise ValueError(f"sigma must lie in 0..{LARGEST_SIGMA}, not {shown(self.sigma)}")

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most latents of a span."""
        dropped = self.intervention is not None and self.intervention.kind == "drop"
        return (0, 0) if dropped else (self.min_latents, self.max_latents)

    def updated(self, values: Mapping[str, Any], allowed: tuple[str, ...]) -> SpanOptions:
        """Returns these options with some replaced. Raises ValueError for a name that is not in ``allowed``."""
        unknown = sorted(set(values) - set(allowed))
        if unknown:
            raise ValueError(f"unknown latent option {', '.join(unknown)[:100]}; there are {', '.join(allowed)}")
        return replace(self, **values)


@dataclass(frozen=True)
class EngineSettings:
    """The control tokens of the checkpoint and the default options of requests."""

    tokens: LatentTokens
    defaults: SpanOptions
    hidden_size: int
    max_model_len: int
    asynchronous: bool

    @classmethod
    def from_vllm(cls, vllm_config: VllmConfig) -> EngineSettings:
        """Reads vLLM's config. Raises ValueError if the checkpoint lacks control tokens or an option is not valid."""
        checkpoint = LatentSettings.from_config(vllm_config.model_config.hf_config)
        additional = vllm_config.additional_config
        if not isinstance(additional, dict):
            raise ValueError(f"additional_config must be a mapping, not {shown(additional)}")
        options = additional.get(LATENT_KEY, {})
        defaults = SpanOptions(checkpoint.max_latents).updated(options, ENGINE_OPTIONS)
        asynchronous = bool(vllm_config.scheduler_config.async_scheduling)
        model = vllm_config.model_config
        return cls(checkpoint.tokens, defaults, model.get_hidden_size(), model.max_model_len, asynchronous)

    def of_request(self, params: SamplingParams) -> SpanOptions:
        """Returns the options of one request; its noise seed is ``SamplingParams.seed`` unless its own options name one.

        vLLM adds the index of a completion to ``SamplingParams.seed`` but not to a seed among the options, so with n > 1
        only the former gives the completions different noise.

        Raises ValueError for unknown or impossible options, and for an intervention with async scheduling: its replacement
        depends on earlier latents, which must be on the host.
        """
        extra = params.extra_args or {}
        _check_names(extra)
        given = dict(_mapping(extra.get(LATENT_KEY, {})))
        kind, vectors = given.pop("intervene", None), given.pop("given", None)
        if PROMPT in given:
            given[PROMPT] = self._vectors(given[PROMPT])
        returned = extra.get(RETURN_KEY, self.defaults.return_latents)
        if returned not in (0, 1):  # the chat API turns true and false into whole numbers
            raise ValueError(f"{RETURN_KEY} must be true or false, not {shown(returned)}")
        options = replace(self.defaults, seed=params.seed, return_latents=bool(returned)).updated(given, REQUEST_OPTIONS)
        if kind is None and vectors is None:
            return options
        if self.asynchronous:
            raise ValueError("interventions need an engine with async_scheduling=False (--no-async-scheduling)")
        if kind not in KINDS:
            raise ValueError(f"an intervention is one of {', '.join(KINDS)}, not {shown(kind)}")
        return replace(options, intervention=Intervention(kind, self._vectors(vectors), options.seed or 0))

    def _vectors(self, text: str | None) -> Tensor | None:
        """Reads vectors ``[k, H]``. Raises ValueError for another width H or more rows than a request can have tokens."""
        return None if text is None else from_text(text, self.hidden_size, self.max_model_len)


def _check_names(extra: Mapping[str, Any]) -> None:
    """Raises ValueError for a name that is nearly one of ours, or belongs into ``latent``, since vLLM would ignore it. Other
    names may belong to other plugins."""
    for name in extra.keys() - {LATENT_KEY, RETURN_KEY}:
        if near := get_close_matches(name, (LATENT_KEY, RETURN_KEY, *REQUEST_OPTIONS), 1, 0.8):
            meant = near[0] if near[0] in (LATENT_KEY, RETURN_KEY) else f"{near[0]} within {LATENT_KEY}"
            raise ValueError(f"unknown request option {shown(name)}; did you mean {meant}?")


def _mapping(given: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Returns a mapping, given as such or as JSON. Raises ValueError if it is not a mapping."""
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except RecursionError:
        raise ValueError("latent options are nested too deeply") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"latent options are a mapping, not {shown(found)}")
    return found


def shown(value: Any) -> str:
    """Returns a client's value, shortened, for an error message: it may be long, or nested too deeply to print."""
    return reprlib.repr(value)
