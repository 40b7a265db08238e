"""Plans a step of the V1 runner: decides which rows get a latent carried over on the device, and which one from the store.

Needs numpy and torch, not vLLM. "Row" is an index into the batch, "flat row" an index into the tokens of a step.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from future_l1_verl.decoding.vllm.store import OUTSIDE, LatentStore, Step, span_state
from future_l1_verl.latents.tokens import LatentTokens


class Batch(NamedTuple):
    """The part of vLLM's batch that matters to spans, for n requests; everything is on the host."""

    request_ids: list[str]
    computed: np.ndarray  # int [n]: tokens whose keys and values are already computed
    offsets: np.ndarray  # int [n + 1]: flat row of each request's first token
    discarded: np.ndarray  # bool [n]: more of the prompt follows, the token sampled now is dropped
    token_ids: np.ndarray  # int [>= n, max_model_len]


class Moved(NamedTuple):
    """The origin of the rows of a step, unless every row continues the row of the same index of the step before.

    Row ``carried[k]`` continues row ``carried_from[k]``. ``kept`` are the latents to inject from the store, by flat row.
    ``state`` ``[n]`` is the span state of the rows that are not carried.
    """

    carried: list[int]
    carried_from: list[int]
    kept: list[tuple[int, Tensor]]
    state: list[int]


class Plan(NamedTuple):
    """The rows of a step, as in ``Step``; ``moved`` is None if each continues the row of the same index of the step before."""

    request_ids: list[str]
    positions: np.ndarray
    discarded: list[bool]
    moved: Moved | None


def make_plan(batch: Batch, before: Step | None, store: LatentStore, tokens: LatentTokens) -> Plan:
    """Splits the rows of a step by the source of their latents.

    A row that decodes the token sampled in the step before is carried over on the device. Every other row (part of a prompt,
    resumed after preemption, absent from the step before) has its tokens on the host and its latents in the store.

    Raises RuntimeError if the store lacks the latent of a slot.
    """
    n, discarded = len(batch.request_ids), batch.discarded.tolist()
    if (
        before is not None
        and before.request_ids == batch.request_ids
        and batch.offsets[-1] == n  # one token per row
        and True not in before.discarded
        and (before.positions == batch.computed).all()
    ):
        return Plan(before.request_ids, before.positions + 1, discarded, None)
    request_ids, lengths = list(batch.request_ids), np.diff(batch.offsets)  # vLLM changes its list from step to step
    positions = (batch.computed + lengths).astype(np.int64)
    carried, carried_from, kept, state = moved = Moved([], [], [], [OUTSIDE] * n)
    for i, request in enumerate(request_ids):
        row = before.row.get(request) if before is not None else None
        if before is not None and row is not None and lengths[i] == 1 and before.positions[row] == batch.computed[i]:
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
