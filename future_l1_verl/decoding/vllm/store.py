"""Latents of the live requests, and what a step has to write where.

Knows numpy and torch; nothing of vLLM. "Row" is an index into the batch, "flat row" one into the tokens of a step. Latents on
the host are arrays as they travel (wire.py): an array has cheap rows, a tensor has not.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.decoding.vllm.wire import from_array, to_array
from future_l1_verl.latents.tokens import LatentTokens

OUTSIDE = -1  # span state of a row that is in no span
Slot = tuple[str, int]  # request and absolute position


@dataclass
class RequestLatents:
    """Options of a request and its latents so far: absolute position to ``[H]``."""

    options: SpanOptions
    at: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, options: SpanOptions, prompt: list[int], latent: int) -> RequestLatents:
        """Of a request that begins: the latents of the slots in its prompt, of which the scheduler has checked the number."""
        if options.prompt_latents is None:
            return cls(options)
        slots = [position for position, token in enumerate(prompt) if token == latent]
        return cls(options, dict(zip(slots, to_array(options.prompt_latents), strict=True)))

    def run_before(self, position: int) -> int:
        """How many latents stand directly before ``position``: those of its span so far."""
        first = position
        while first - 1 in self.at:
            first -= 1
        return position - first


@dataclass
class LatentStore:
    """What is kept to inject latents again when tokens are prefilled a second time (preemption)."""

    requests: dict[str, RequestLatents] = field(default_factory=dict)
    digest: int = 0  # crc32 of all latents ever put, in order: equal on every tensor-parallel rank

    def put(self, slots: Sequence[Slot], latents: np.ndarray) -> None:
        """Keeps views of ``latents`` ``[S, H]``, one a slot, but for requests that have finished meanwhile."""
        live = [i for i, (request, _) in enumerate(slots) if request in self.requests]
        if len(live) < len(slots):
            latents = latents[live]
        for i, latent in zip(live, latents, strict=True):
            request, position = slots[i]
            self.requests[request].at[position] = latent
        self.digest = zlib.crc32(latents, self.digest)

    def get(self, request_id: str, position: int) -> Tensor:
        """Returns the latent ``[H]``. Raises RuntimeError, naming request and position, if there is none."""
        try:
            return from_array(self.requests[request_id].at[position])
        except KeyError:
            raise RuntimeError(f"request {request_id}: no latent is kept for the slot at position {position}") from None

    @property
    def entries(self) -> int:
        return sum(len(request.at) for request in self.requests.values())


class Batch(NamedTuple):
    """The part of vLLM's batch that decides about spans, for n requests; everything on the host."""

    request_ids: list[str]
    computed: np.ndarray  # int [n]: tokens whose keys and values are there already
    offsets: np.ndarray  # int [n + 1]: flat row of each request's first token
    discarded: np.ndarray  # bool [n]: more of the prompt is to come, what is sampled now is thrown away
    token_ids: np.ndarray  # int [>= n, max_model_len]


@dataclass
class Step:
    """What a step sampled. The tensors stay on the device; nothing of this waits for them."""

    request_ids: list[str]
    positions: np.ndarray  # int64 [n]: absolute position of the sampled token
    discarded: list[bool]  # [n]
    state: Tensor | None  # int64 [n]: span state after the sampled token; None if no row is known to be in a span
    slot: Tensor | None  # bool [n]: the sampled token is <|latent|>; None if no row was in a span
    latents: Tensor  # [n, H]: for a row that is a slot, the latent to feed next
    any_span: bool = True  # False: known that no row is in a span now
    any_slot: bool = True  # False: known that no row is a slot
    entered: bool = True  # False: known that every row was in no span before, or continues one of the step before

    @cached_property
    def row(self) -> dict[str, int]:
        return {request: i for i, request in enumerate(self.request_ids) if not self.discarded[i]}

    def slots(self, rows: list[int]) -> list[Slot]:
        positions = self.positions.tolist()
        return [(self.request_ids[i], positions[i]) for i in rows]


class Moved(NamedTuple):
    """Where the rows of a step come from, unless every row continues the row of the same index of the step before.

    Row ``carried[k]`` continues row ``carried_from[k]``. ``kept`` are the latents to inject from the store, by flat row.
    ``state`` ``[n]`` is the span state of the rows that are not carried.
    """

    carried: list[int]
    carried_from: list[int]
    kept: list[tuple[int, Tensor]]
    state: list[int]


class Plan(NamedTuple):
    """What is to be done for a step. See ``Step`` for the first three."""

    request_ids: list[str]
    positions: np.ndarray
    discarded: list[bool]
    moved: Moved | None


def make_plan(batch: Batch, before: Step | None, store: LatentStore, tokens: LatentTokens) -> Plan:
    """Splits the rows of a step by where their latents come from.

    A row that decodes the token sampled in the step before is carried on the device. Every other row (part of a prompt,
    resumed after preemption, left out of the step before) has its tokens on the host, and its latents in the store.

    Raises RuntimeError if the store lacks the latent of a slot.
    """
    n, discarded = len(batch.request_ids), batch.discarded.tolist()
    if (
        before is not None
        and before.request_ids == batch.request_ids
        and batch.offsets[-1] == n  # a token each
        and True not in before.discarded
        and (before.positions == batch.computed).all()
    ):
        return Plan(before.request_ids, before.positions + 1, discarded, None)
    request_ids, lengths = list(batch.request_ids), np.diff(batch.offsets)  # vLLM changes its list from step to step
    positions = (batch.computed + lengths).astype(np.int64)
    carried, carried_from, kept, state = moved = Moved([], [], [], [OUTSIDE] * n)
    for i, request in enumerate(request_ids):
        row = before.row.get(request) if before is not None else None
        if row is not None and lengths[i] == 1 and before.positions[row] == batch.computed[i]:
            carried.append(i)
            carried_from.append(row)
            continue
        first, end = int(batch.computed[i]), int(positions[i])
        scheduled = batch.token_ids[i, first:end]
        for k in np.nonzero(scheduled == tokens.latent)[0].tolist():
            kept.append((int(batch.offsets[i]) + k, store.get(request, first + k)))
        if not discarded[i]:
            state[i] = span_state(batch.token_ids[i], end - 1, tokens)
    return Plan(request_ids, positions, discarded, moved)


def span_state(token_ids: np.ndarray, last: int, tokens: LatentTokens) -> int:
    """Latents so far in the span that index ``last`` lies in, or OUTSIDE."""
    first = last
    while first >= 0 and token_ids[first] == tokens.latent:
        first -= 1
    return last - first if first >= 0 and token_ids[first] == tokens.start else OUTSIDE
