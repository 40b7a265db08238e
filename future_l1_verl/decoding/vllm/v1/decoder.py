"""The spans of one model runner: overwrites embedding rows, records sampled tokens, and keeps and returns latents.

The runner calls, once per step and in this order: ``begin``, ``inject``, ``sampled``, then ``finish`` (or, with async
scheduling, ``finish_async``). Nothing here depends on values on the device before its tokens have been copied to the
host for vLLM's own bookkeeping.
"""

from collections import deque
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

from future_l1_verl.decoding.vllm.outputs import LatentAsyncOutput, LatentRunnerOutput, by_request
from future_l1_verl.decoding.vllm.sampling import Decided, SpanRows, opened
from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.decoding.vllm.store import OUTSIDE, LatentStore, RequestLatents, Step
from future_l1_verl.decoding.vllm.v1.plan import Batch, Moved, Plan, make_plan
from future_l1_verl.decoding.vllm.wire import to_array
from future_l1_verl.latents.noise import add_noise


class _RowOptions(NamedTuple):
    """The options of the rows of a batch, each ``[n]`` on the device; ``noisy`` if any sigma is above 0.

    ``intervened`` are the rows whose latents are replaced, ``returned`` the requests whose latents leave the engine.
    """

    request_ids: list[str]
    min_latents: Tensor
    max_latents: Tensor
    sigma: Tensor
    seed: Tensor
    noisy: bool
    intervened: list[int]
    returned: frozenset[str]


class SpanDecoder:
    """The state of the spans of all live requests of a worker."""

    def __init__(self, settings: EngineSettings, device: torch.device) -> None:
        self.settings = settings
        self.tokens = settings.tokens
        self.device = device
        self.store = LatentStore()
        self.reinjected = 0  # latents injected from the store rather than carried over from the step before
        self.rows: SpanRows | None = None  # the sampler's input for this step; None if no row is in a span
        self._before: Step | None = None  # the step before, until the rows of this one are planned
        self._plan: Plan
        self._step: Step
        self._options: _RowOptions | None = None
        self._unabsorbed: deque[LatentAsyncOutput | None] = deque()  # of steps, None for one without spans

    def begin(self, scheduler_output: SchedulerOutput) -> None:
        """Adds and removes requests in the store, before vLLM updates its batch."""
        # With async scheduling one step is in flight when the next is prepared. The step before it has ended, and only its
        # tokens can be prefilled again. After a step without tokens, those of the step in flight can be as well.
        in_flight = 1 if scheduler_output.total_num_scheduled_tokens else 0
        while len(self._unabsorbed) > in_flight:
            if (ended := self._unabsorbed.popleft()) is not None:
                self._absorb(ended)
        for finished in scheduler_output.finished_req_ids:
            self.store.requests.pop(finished, None)
        for request in scheduler_output.scheduled_new_reqs:
            options = self.settings.of_request(cast(SamplingParams, request.sampling_params))
            prompt = cast(list[int], request.prompt_token_ids)
            self.store.requests[request.req_id] = RequestLatents.from_options(options, prompt, self.tokens.latent)
            self._options = None
            if self._before is not None and request.req_id in self._before.row:
                self._before = None  # the id of a request that has just finished

    def inject(self, batch: Batch, inputs_embeds: Tensor) -> None:
        """Overwrites in place the rows of ``inputs_embeds`` ``[tokens, H]`` that are slots.

        Raises RuntimeError if the latent of a slot is missing.
        """
        before, self._before = self._before, None
        plan = self._plan = make_plan(batch, before, self.store, self.tokens)
        if before is not None and not before.any_span:
            before = None
        if plan.moved is not None:
            self.rows = self._inject_moved(plan, plan.moved, before, batch.offsets, inputs_embeds)
        elif before is None:
            self.rows = None
        else:
            state, slot = _in_spans(before)
            if before.any_slot:
                self._inject_carried(slot, before.latents, inputs_embeds.narrow(0, 0, len(plan.positions)))
            self.rows = self._span_rows(plan, state, before.any_slot)

    def _inject_moved(
        self, plan: Plan, moved: Moved, before: Step | None, offsets: np.ndarray, inputs_embeds: Tensor
    ) -> SpanRows | None:
        self._inject_kept(moved.kept, inputs_embeds)
        if before is None or not moved.carried:
            if max(moved.state) == OUTSIDE:
                return None
            return self._span_rows(plan, self._to_device(moved.state, torch.int64), max(moved.state) > 0)
        source = self._to_device(moved.carried_from, torch.int64)
        state_before, slot = _in_spans(before)
        if before.any_slot:
            flat = self._to_device(offsets[moved.carried], torch.int64)
            rows = inputs_embeds.index_select(0, flat)
            self._inject_carried(slot.index_select(0, source), before.latents.index_select(0, source), rows)
            inputs_embeds.index_copy_(0, flat, rows)
        state, target = self._to_device(moved.state, torch.int64), self._to_device(moved.carried, torch.int64)
        state = state.index_copy(0, target, state_before.index_select(0, source))
        return self._span_rows(plan, state, before.any_slot or max(moved.state) > 0)

    def _inject_kept(self, kept: list[tuple[int, Tensor]], inputs_embeds: Tensor) -> None:
        if not kept:
            return
        flat_rows, latents = zip(*kept, strict=True)
        self.reinjected += len(latents)
        values = async_tensor_h2d(torch.stack(latents), self.device, inputs_embeds.dtype)
        inputs_embeds.index_copy_(0, self._to_device(list(flat_rows), torch.int64), values)

    def _inject_carried(self, slot: Tensor, latents: Tensor, rows: Tensor) -> None:
        """Overwrites those of ``rows`` ``[n, H]`` that are a slot."""
        torch.where(slot.unsqueeze(1), latents.to(rows.dtype), rows, out=rows)

    def _span_rows(self, plan: Plan, state: Tensor, free: bool) -> SpanRows:
        options = self._row_options(plan.request_ids)
        return SpanRows(state, state < 0, options.min_latents, options.max_latents, free)

    def sampled(self, token_ids: Tensor, decided: Decided | None, hidden: Tensor) -> None:
        """Records the tokens of the rows, ``token_ids`` ``[n, 1]``; ``decided`` is None if no row was in a span; ``hidden``
        ``[n, H]`` are the hidden states that they were sampled from."""
        plan = self._plan
        if decided is None:
            step = Step(*_rows(plan), None, None, hidden, any_slot=False, any_span=False, entered=False)
            self._before = self._step = step
            if self.settings.asynchronous and self.settings.defaults.spans:
                step.state, step.any_span = opened(token_ids.select(1, 0), self.tokens), True
            return
        latents, options = hidden, self._row_options(plan.request_ids)
        if options.noisy:
            positions = self._to_device(plan.positions, torch.int64)
            latents = add_noise(hidden, options.sigma, options.seed, positions)
        if options.intervened:
            latents = self.store.replaced(latents, options.intervened, plan.request_ids, plan.positions)
        entered = plan.moved is not None and max(plan.moved.state) != OUTSIDE
        self._before = self._step = Step(*_rows(plan), decided.state, decided.slot, latents, entered=entered)

    def finish(self, output: ModelRunnerOutput) -> ModelRunnerOutput:
        """Keeps the latents of the step and adds them to its output, whose token ids are on the host."""
        step = self._step
        latent, start, sampled = self.tokens.latent, [self.tokens.start], output.sampled_token_ids
        rows = [i for i, ids in enumerate(sampled) if latent in ids]
        step.any_slot = bool(rows)
        step.any_span = step.any_slot or start in sampled
        if step.any_span and step.state is None:
            step.state = self._to_device([0 if ids == start else OUTSIDE for ids in sampled], torch.int64)
        if not rows:
            return output
        slots, latents = step.slots(rows), to_array(step.latents.cpu()).take(rows, 0)
        self.store.put(slots, latents)
        return LatentRunnerOutput.with_latents(output, by_request(slots, latents, self._row_options(step.request_ids).returned))

    def finish_async(self, output: AsyncModelRunnerOutput, stream: torch.cuda.Stream | None) -> AsyncModelRunnerOutput:
        """Does what ``finish`` does, once the step has ended. ``stream`` is vLLM's for copies to the host, None on a CPU."""
        step = self._step
        if not step.any_span:
            self._unabsorbed.append(None)
            return output
        returned = self._row_options(step.request_ids).returned if step.any_slot else frozenset()
        wrapped = LatentAsyncOutput(output, step, stream, returned)
        self._unabsorbed.append(wrapped)
        return wrapped

    def _absorb(self, output: LatentAsyncOutput) -> None:
        slots, latents, any_span = output.on_host()
        if latents is not None:
            self.store.put(slots, latents)
        output.step.any_slot, output.step.any_span = bool(slots), any_span
        if self._unabsorbed and self._unabsorbed[0] is not None and (following := self._unabsorbed[0].step).slot is not None:
            # Only a row that was in a span before it gets a slot.
            following.any_slot = any_span or following.entered
            following.any_span = following.any_slot or self.settings.defaults.spans

    def _row_options(self, request_ids: list[str]) -> _RowOptions:
        if self._options is None or self._options.request_ids != request_ids:
            rows = [self.store.requests[request].options for request in request_ids]
            self._options = _RowOptions(
                request_ids,
                self._to_device([row.bounds[0] for row in rows], torch.int64),
                self._to_device([row.bounds[1] for row in rows], torch.int64),
                self._to_device([row.sigma for row in rows], torch.float32),
                self._to_device([row.seed or 0 for row in rows], torch.int64),
                any(row.sigma > 0 for row in rows),
                [i for i, row in enumerate(rows) if row.intervention is not None],
                frozenset(request for request, row in zip(request_ids, rows, strict=True) if row.return_latents),
            )
        return self._options

    def _to_device(self, values: list | np.ndarray, dtype: torch.dtype) -> Tensor:
        return async_tensor_h2d(values, self.device, dtype)


def _rows(plan: Plan) -> tuple[list[str], np.ndarray, list[bool]]:
    return plan.request_ids, plan.positions, plan.discarded


def _in_spans(step: Step) -> tuple[Tensor, Tensor]:
    """Returns state and slot of a step that may have rows in spans; the latter only if one of them may be a slot."""
    return cast(Tensor, step.state), cast(Tensor, step.slot)
