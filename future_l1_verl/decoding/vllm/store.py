"""The latents of the live requests, and the results of a step.

Needs numpy and torch, not vLLM. "Row" is an index into the batch. Latents on the host are arrays in the form in which they
are sent (wire.py), since the rows of an array are cheaper than those of a tensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.decoding.vllm.wire import from_array, to_array
from future_l1_verl.latents.tokens import LatentTokens

OUTSIDE = -1  # span state of a row that is not in a span
Slot = tuple[str, int]  # request and absolute position


@dataclass
class RequestLatents:
    """The options of a request and its latents so far: absolute position to ``[H]``."""

    options: SpanOptions
    at: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: SpanOptions, prompt: list[int], latent: int) -> RequestLatents:
        """Returns the state of a new request, with the latents of its prompt's slots; the scheduler checked their number."""
        if options.prompt_latents is None:
            return cls(options)
        slots = [position for position, token in enumerate(prompt) if token == latent]
        return cls(options, dict(zip(slots, to_array(options.prompt_latents), strict=True)))

    def run_before(self, position: int) -> int:
        """Returns the number of latents directly before ``position``: those of its span so far."""
        first = position
        while first - 1 in self.at:
            first -= 1
        return position - first


@dataclass
class LatentStore:
    """Keeps latents, to inject them again when tokens are prefilled a second time (preemption)."""

    requests: dict[str, RequestLatents] = field(default_factory=dict)
    digest: int = 0  # crc32 of all latents ever put, in order: equal on every tensor-parallel rank

    def put(self, slots: Sequence[Slot], latents: np.ndarray) -> None:
        """Keeps views of ``latents`` ``[S, H]``, one per slot, except for requests that have finished meanwhile."""
        live = [i for i, (request, _) in enumerate(slots) if request in self.requests]
        if len(live) < len(slots):
            latents = latents[live]
        for i, latent in zip(live, latents, strict=True):
            request, position = slots[i]
            self.requests[request].at[position] = latent
        self.digest = zlib.crc32(latents.data, self.digest)

    def get(self, request_id: str, position: int) -> Tensor:
        """Returns the latent ``[H]``. Raises RuntimeError, naming request and position, if there is none."""
        try:
            return from_array(self.requests[request_id].at[position])
        except KeyError:
            raise RuntimeError(f"request {request_id}: no latent is kept for the slot at position {position}") from None

    def replaced(self, latents: Tensor, rows: list[int], request_ids: list[str], positions: np.ndarray) -> Tensor:
        """Returns ``latents [n, H]`` of a step, with those of ``rows`` replaced by their requests' interventions; the values
        of rows that are not slots do not matter.

        All earlier latents are in the store: without async scheduling (settings.py) no step is in flight.
        """
        latents = latents.clone()
        for row in rows:
            request, position = self.requests[request_ids[row]], int(positions[row])
            before = _Tensors(list(request.at.values()))
            if (chosen := request.options.intervention) is not None:
                latents[row] = chosen.replaced(latents[row], before, request.run_before(position), position)
        return latents

    @property
    def entries(self) -> int:
        return sum(len(request.at) for request in self.requests.values())


@dataclass
class Step:
    """The results of a step. The tensors stay on the device; nothing here waits for them."""

    request_ids: list[str]
    positions: np.ndarray  # int64 [n]: absolute position of the sampled token
    discarded: list[bool]  # [n]
    state: Tensor | None  # int64 [n]: span state after the sampled token; None if no row is known to be in a span
    slot: Tensor | None  # bool [n]: the sampled token is <|latent|>; None if no row was in a span
    latents: Tensor  # [n, H]: for a row that is a slot, the latent to feed next
    any_span: bool = True  # False: it is known that no row is in a span now
    any_slot: bool = True  # False: it is known that no row is a slot
    entered: bool = True  # False: it is known that each row was outside spans before, or continues a row of the step before

    @cached_property
    def row(self) -> dict[str, int]:
        return {request: i for i, request in enumerate(self.request_ids) if not self.discarded[i]}

    def slots(self, rows: list[int]) -> list[Slot]:
        positions = self.positions.tolist()
        return [(self.request_ids[i], positions[i]) for i in rows]


def span_state(token_ids: np.ndarray, last: int, tokens: LatentTokens) -> int:
    """Returns the number of latents so far in the span that contains index ``last``, or OUTSIDE."""
    first = last
    while first >= 0 and token_ids[first] == tokens.latent:
        first -= 1
    return last - first if first >= 0 and token_ids[first] == tokens.start else OUTSIDE


@dataclass(frozen=True)
class _Tensors(Sequence[Tensor]):
    """A sequence of arrays that become tensors when they are read."""

    arrays: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # no slices
        return from_array(self.arrays[index])
