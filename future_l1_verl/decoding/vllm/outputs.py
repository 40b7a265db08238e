"""Returns latents from the engine on the request's own output.

``ModelRunnerOutput`` → ``LatentRunnerOutput.latents`` (worker to scheduler) → ``EngineCoreOutput.routed_experts``
(scheduler to front end) → ``CompletionOutput.routed_experts``, which the front end concatenates over steps. Of the two
fields of an output that could carry an array, this one streams, so it survives an abort and works with n > 1;
``kv_transfer_params`` rides on the last output only. The field is otherwise used for MoE router replay, which is refused.
Engines with tensor parallel workers exit cleanly with it (tests/decoding/test_tensor_parallel.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.outputs import CompletionOutput
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

from future_l1_verl.decoding.vllm.store import OUTSIDE, Slot, Step
from future_l1_verl.decoding.vllm.wire import from_array, to_array


@dataclass
class LatentRunnerOutput(ModelRunnerOutput):
    """Upstream's output of a step, plus the latents of requests that got a slot and want it back: id to ``[1, H]``."""

    latents: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def with_latents(cls, output: ModelRunnerOutput, latents: dict[str, np.ndarray]) -> LatentRunnerOutput:
        return cls(**vars(output), latents=latents)


def completion_latents(output: CompletionOutput, hidden_size: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns the latents of a finished (or aborted) completion, in the order of its slots.

    The result is ``[slots, H]`` in the model's dtype (float32, float16 or bfloat16), or ``[0, hidden_size]`` of ``dtype`` if
    the completion has no slot or its request wanted none back: the engine sends nothing then, so a caller that needs this
    shape and dtype must pass them.

    Raises ValueError if the completion is not finished, or ``hidden_size`` is given and is not the latents' width.
    """
    if output.finish_reason is None:
        raise ValueError(f"completion {output.index} is not finished; its latents come with its last output")
    if output.routed_experts is None:
        return torch.empty(0, hidden_size, dtype=dtype)
    latents = from_array(output.routed_experts)
    if hidden_size and latents.shape[-1] != hidden_size:
        raise ValueError(f"completion {output.index}: latents have width {latents.shape[-1]}, not {hidden_size}")
    return latents


class LatentAsyncOutput(AsyncModelRunnerOutput):
    """Upstream's output of a step in flight, plus its latents.

    ``get_output`` runs in a separate thread, and only on the rank that reports to the scheduler; so it only reads, and the
    stores, one on every rank, are filled when later steps begin.
    """

    def __init__(
        self, output: AsyncModelRunnerOutput, step: Step, stream: torch.cuda.Stream | None, returned: frozenset[str]
    ) -> None:
        self._output, self._returned = output, returned
        self.step = step  # also keeps the tensors on the device alive until they are copied
        self._copied = None
        if stream is None:
            self._latents: Tensor | None = step.latents
            self._state = step.state
            return
        self._copied = torch.cuda.Event()
        producer = torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            stream.wait_stream(producer)
            self._latents = step.latents.to("cpu", non_blocking=True) if step.any_slot else None
            self._state = None if step.state is None else step.state.to("cpu", non_blocking=True)
            self._copied.record()

    def on_host(self) -> tuple[list[Slot], np.ndarray | None, bool]:
        """Waits for the copies, then returns the slots of the step, their latents ``[S, H]`` (None if there are none), and
        whether a row is in a span now."""
        if self._copied is not None:
            self._copied.synchronize()
        state = [OUTSIDE] if self._state is None else self._state.tolist()
        any_span = max(state) != OUTSIDE
        rows = [i for i, length in enumerate(state) if length > 0 and not self.step.discarded[i]]
        if not rows:
            return [], None, any_span
        if self._latents is None:
            raise RuntimeError(f"a step has {len(rows)} slots and no latents")
        return self.step.slots(rows), to_array(self._latents)[rows], any_span

    def get_kv_connector_output(self) -> Any:
        """Returns upstream's value; the method is abstract in newer versions."""
        return self._output.get_kv_connector_output()  # type: ignore[attr-defined]

    def get_output(self) -> ModelRunnerOutput:
        output = self._output.get_output()
        slots, latents, _ = self.on_host()
        returned = by_request(slots, latents, self._returned) if latents is not None else None
        return LatentRunnerOutput.with_latents(output, returned) if returned else output


def by_request(slots: list[Slot], latents: np.ndarray, returned: frozenset[str]) -> dict[str, np.ndarray]:
    """Returns views ``[1, H]`` of ``latents [S, H]``, by request, for the requests that want them back."""
    return {request: latent for (request, _), latent in zip(slots, latents[:, None], strict=True) if request in returned}
