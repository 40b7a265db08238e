"""Keeps the spans of one worker's requests on the V2 model runner: their state from step to step, on the device.

While a request runs, upstream gives it a place in tables of ``max_num_seqs`` rows ("by place" below; ``idx_mapping`` has the
places of a batch). A preempted request loses its place; latents that are prefilled again, or that belong to an answer to be
continued, come from the store on the host.
"""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.outputs import AsyncModelRunnerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.states import RequestState

from future_l1_verl.decoding.vllm.outputs import LatentAsyncOutput
from future_l1_verl.decoding.vllm.sampling import Decided, SpanRows
from future_l1_verl.decoding.vllm.settings import EngineSettings
from future_l1_verl.decoding.vllm.store import OUTSIDE, LatentStore, RequestLatents, Step, span_state
from future_l1_verl.decoding.vllm.v2.sampler import LatentSampler
from future_l1_verl.latents.noise import add_noise


class _Entered(NamedTuple):
    """The state and options of a request that gets a place."""

    place: int
    state: int
    min_latents: int
    max_latents: int
    seed: int
    sigma: float


class LatentModelState(DefaultModelState):
    """Upstream (vllm/v1/worker/gpu/model_states/{interface,default}.py) calls a model state at fixed points of a step.

    The runner calls ``begin``, before anything else of a step, ``sampled`` and ``finish`` (runner.py). Nothing here waits for
    values on the device.
    """

    def __init__(self, vllm_config: VllmConfig, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, model, *args, **kwargs)
        self.settings = EngineSettings.from_vllm(vllm_config)
        self.tokens = self.settings.tokens
        self.store = LatentStore()
        self.reinjected = 0  # latents injected from the store rather than carried over from the step before
        places = self.max_num_reqs
        # By place: the span state and options of a request, and the latent that it is fed next.
        self._state = torch.full((places,), OUTSIDE, dtype=torch.int64, device=self.device)
        self._options = torch.zeros(3, places, dtype=torch.int64, device=self.device)  # min_latents, max_latents, seed
        self._sigma = torch.zeros(places, dtype=torch.float32, device=self.device)
        self._latent = torch.zeros(places, self.inputs_embeds_size, dtype=self.dtype, device=self.device)
        self._entered: list[_Entered] = []
        self._slots: dict[str, list[int]] = {}  # absolute positions of the slots that a request prefills
        self._noisy: set[str] = set()
        self._intervened: set[str] = set()
        self._returned: set[str] = set()
        self._step: Step | None = None
        self._unabsorbed: deque[LatentAsyncOutput] = deque()

    # A request

    def begin(self, scheduler_output: SchedulerOutput) -> None:
        """Stores sampled latents, and removes the requests that have finished."""
        # With async scheduling one step is in flight when the next is prepared. The step before it has ended, and only its
        # tokens can be prefilled again. After a step without tokens, those of the step in flight can be as well.
        in_flight = 1 if self.settings.asynchronous and scheduler_output.total_num_scheduled_tokens else 0
        while len(self._unabsorbed) > in_flight:
            slots, latents, _ = self._unabsorbed.popleft().on_host()
            if slots:
                self.store.put(slots, latents)
        for request in scheduler_output.finished_req_ids:
            self.store.requests.pop(request, None)
            self._slots.pop(request, None)
            for chosen in (self._noisy, self._intervened, self._returned):
                chosen.discard(request)

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        """Upstream adds a new or resumed request; here its latents and options are recorded too."""
        super().add_request(req_index, new_req_data)
        request, ids = new_req_data.req_id, np.array(new_req_data.prefill_token_ids)
        if request not in self.store.requests:
            given = self.settings.of_request(new_req_data.sampling_params)
            self.store.requests[request] = RequestLatents.from_options(given, new_req_data.prompt_token_ids, self.tokens.latent)
        options = self.store.requests[request].options
        for chosen, is_chosen in (
            (self._noisy, options.sigma > 0),
            (self._intervened, options.intervention is not None),
            (self._returned, options.return_latents),
        ):
            if is_chosen:
                chosen.add(request)
        self._slots[request] = np.nonzero(ids == self.tokens.latent)[0].tolist()
        state = span_state(ids, len(ids) - 1, self.tokens)
        self._entered.append(_Entered(req_index, state, *options.bounds, options.seed or 0, options.sigma))

    def apply_staged_writes(self) -> None:
        """Upstream calls it after all requests of a step are added; here their span state is copied to the device."""
        super().apply_staged_writes()
        if not self._entered:
            return
        places, state, *options, sigma = zip(*self._entered, strict=True)
        self._entered.clear()
        index = self._to_device(places, torch.int64)
        self._state.index_copy_(0, index, self._to_device(state, torch.int64))
        self._options.index_copy_(1, index, self._to_device(options, torch.int64))
        self._sigma.index_copy_(0, index, self._to_device(sigma, torch.float32))

    # A step

    def prepare_inputs_embeds(
        self, scheduled_encoder_inputs: dict[str, list[int]], input_batch: InputBatch, req_states: RequestState
    ) -> Tensor:
        """Upstream embeds token ids into a persistent buffer; here the row of a slot gets its latent instead.

        CUDA graphs read that buffer, so its rows are written in place. Raises RuntimeError if the latent of a slot is missing.
        """
        embeds = super().prepare_inputs_embeds(scheduled_encoder_inputs, input_batch, req_states)
        self._inject_carried(input_batch, embeds)
        if input_batch.has_prefill:  # after the others, since a prompt may also end in a slot
            self._inject_kept(input_batch, embeds)
        return embeds

    def _inject_carried(self, batch: InputBatch, embeds: Tensor) -> None:
        last = batch.logits_indices
        slot = batch.input_ids.index_select(0, last) == self.tokens.latent
        latents = self._latent.index_select(0, batch.idx_mapping)
        embeds.index_copy_(0, last, torch.where(slot.unsqueeze(1), latents, embeds.index_select(0, last)))

    def _inject_kept(self, batch: InputBatch, embeds: Tensor) -> None:
        flat_rows, latents = [], []
        for row in batch.is_prefilling_np.nonzero()[0].tolist():
            request, first = batch.req_ids[row], int(batch.num_computed_tokens_np[row])
            offset = int(batch.query_start_loc_np[row]) - first
            for position in self._slots[request]:
                if first <= position < first + batch.num_scheduled_tokens[row]:
                    flat_rows.append(offset + position)
                    latents.append(self.store.get(request, position))
        if latents:
            self.reinjected += len(latents)
            values = async_tensor_h2d(torch.stack(latents), self.device, embeds.dtype)
            embeds.index_copy_(0, self._to_device(flat_rows, torch.int64), values)

    def custom_sampler(self, sampler: Sampler) -> tuple[LatentSampler, None]:
        """Returns the sampler that upstream uses in place of its own ``sampler``."""
        return LatentSampler.around(sampler, self), None

    def rows(self, batch: InputBatch) -> SpanRows:
        """Returns the span state of a batch, for the sampler."""
        state = self._state.index_select(0, batch.idx_mapping)
        min_latents, max_latents, _ = self._options.index_select(1, batch.idx_mapping)
        return SpanRows(state, state < 0, min_latents, max_latents)

    def sampled(self, batch: InputBatch, decided: Decided, hidden: Tensor, kept: Tensor) -> None:
        """Records the tokens of the rows; ``hidden`` ``[n, H]`` are the states they were sampled from. ``kept``, bool ``[n]``,
        is False where more of the prompt follows, so the sampled token is dropped."""
        places, latents = batch.idx_mapping, hidden
        positions = (batch.num_computed_tokens_np + batch.num_scheduled_tokens).astype(np.int64)
        if not self._noisy.isdisjoint(batch.req_ids):
            sigma, seed = self._sigma.index_select(0, places), self._options[2].index_select(0, places)
            latents = add_noise(hidden, sigma, seed, self._to_device(positions, torch.int64))
        if intervened := self._intervened.intersection(batch.req_ids):
            rows = [row for row, request in enumerate(batch.req_ids) if request in intervened]
            latents = self.store.replaced(latents, rows, batch.req_ids, positions)
        state = torch.where(kept, decided.state, self._state.index_select(0, places))
        self._state.index_copy_(0, places, state)
        slot = decided.slot & kept
        before = self._latent.index_select(0, places)
        self._latent.index_copy_(0, places, torch.where(slot.unsqueeze(1), latents.to(self.dtype), before))
        nothing = [False] * len(batch.req_ids)
        self._step = Step(list(batch.req_ids), positions, nothing, decided.state.masked_fill(~slot, OUTSIDE), slot, latents)

    def finish(self, output: AsyncModelRunnerOutput, stream: torch.cuda.Stream | None) -> AsyncModelRunnerOutput:
        """Adds the latents of the step to its output. ``stream`` is vLLM's for copies to the host, None on a CPU."""
        returned = self._returned.intersection(self._step.request_ids)
        wrapped = LatentAsyncOutput(output, self._step, stream, frozenset(returned))
        self._unabsorbed.append(wrapped)
        self._step = None
        return wrapped

    def _to_device(self, values: Any, dtype: torch.dtype) -> Tensor:
        return async_tensor_h2d(values, self.device, dtype)
