"""Decoder and sampler on a CUDA device that is none: no operation mixes devices, the host waits for nothing, and what is copied
to it arrives with the event that it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, fake_cuda
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from future_l1_verl.decoding.vllm.settings import EngineSettings, SpanOptions
from future_l1_verl.decoding.vllm.v1.decoder import SpanDecoder
from future_l1_verl.decoding.vllm.v1.plan import Batch
from future_l1_verl.decoding.vllm.v1.sampler import LatentSampler
from future_l1_verl.latents.tokens import LatentTokens

TOKENS = LatentTokens(start=3, latent=4, end=5)
VOCABULARY, HIDDEN = 8, 6
SETTINGS = EngineSettings(TOKENS, SpanOptions(2, sigma=0.5, return_latents=True), HIDDEN, 100, True)
LIKELY = {"a": [3, 0, 0, 5, 1, 3, 0, 5], "b": [1, 3, 0, 0, 0, 2, 1, 2]}  # what each row would like to say
PROMPT = [1, 2]


class Streams:
    """A recording double of CUDA's streams and events. What is copied to the host arrives when an event that was recorded after
    it, on the same stream, is waited for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = "compute"
        self.pending: list[tuple[str, Tensor, Tensor]] = []

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def to_host(self, tensor: FakeCuda) -> Tensor:
        arriving = torch.full_like(tensor.held, -99)
        self.log.append(f"copy on {self.current}")
        self.pending.append((self.current, arriving, tensor.held.clone()))
        return arriving

    def named(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}"))

    def event(self) -> SimpleNamespace:
        recorded: list[tuple[Tensor, Tensor]] = []

        def record() -> None:
            self.log.append(f"record on {self.current}")
            recorded.extend((arriving, value) for stream, arriving, value in self.pending if stream == self.current)

        def synchronize() -> None:
            self.log.append("synchronize")
            for arriving, value in recorded:
                arriving.copy_(value)

        return SimpleNamespace(record=record, synchronize=synchronize)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    found = Streams()
    stock = FakeCuda.to

    def to(tensor: FakeCuda, *args: Any, **kwargs: Any) -> Tensor:
        if args[:1] == ("cpu",) and kwargs.get("non_blocking"):
            return found.to_host(tensor)
        return stock(tensor, *args, **kwargs)

    monkeypatch.setattr(FakeCuda, "to", to)
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "stream", found.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: found.named("compute"))
    return found


def metadata(n: int, device: str) -> SamplingMetadata:
    return SamplingMetadata(
        temperature=torch.full((n,), 0.9).to(device, non_blocking=True),
        all_greedy=False, all_random=True, top_p=None, top_k=None, generators={}, max_num_logprobs=0, no_penalties=True,
        prompt_token_ids=None, frequency_penalties=torch.zeros(n), presence_penalties=torch.zeros(n),
        repetition_penalties=torch.ones(n), output_token_ids=[[]] * n, allowed_token_ids_mask=None, bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )  # fmt: skip


def decode(device: str, copies: Any = None) -> tuple[list[Any], SpanDecoder]:
    """Eight steps of two requests, the second of which joins after the first step. Returns what was sampled, embedded and
    scored in each, with the outputs."""
    decoder = SpanDecoder(SETTINGS, torch.device(device))
    sampler = LatentSampler(Sampler("processed_logprobs"), TOKENS)
    sampler.topk_topp_sampler.forward = lambda logits, *_: (wanted, logits.log_softmax(-1))  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    found: list[Any] = []
    for step in range(8):
        names = ["a"] if step == 0 else ["a", "b"]
        new = [name for name in names if step == names.index(name)]
        params = SimpleNamespace(extra_args=None, seed=7)
        arrivals = [SimpleNamespace(req_id=name, sampling_params=params, prompt_token_ids=PROMPT) for name in new]
        decoder.begin(SimpleNamespace(finished_req_ids=(), scheduled_new_reqs=arrivals, total_num_scheduled_tokens=1))
        lengths = [len(PROMPT) if name in new else 1 for name in names]
        computed = [0 if name in new else len(PROMPT) + step - names.index(name) - 1 for name in names]
        ids = np.full((len(names), 16), -1)  # what was sampled is not on the host yet
        ids[:, : len(PROMPT)] = PROMPT
        offsets = np.cumsum([0, *lengths])
        embeddings = torch.randn(int(offsets[-1]), HIDDEN, generator=generator)
        hidden = torch.randn(len(names), HIDDEN, generator=generator)
        logits = torch.randn(len(names), VOCABULARY, generator=generator)
        wanted = torch.tensor([LIKELY[name][step - names.index(name)] for name in names])
        embeddings, hidden, logits, wanted = (
            each.to(device, non_blocking=True) for each in (embeddings, hidden, logits, wanted)
        )
        decoder.inject(Batch(names, np.array(computed), offsets, np.zeros(len(names), bool), ids), embeddings)
        sampler.turn.rows, sampler.turn.decided = decoder.rows, None
        output = sampler(logits, metadata(len(names), device))
        decoder.sampled(output.sampled_token_ids, sampler.turn.decided, hidden)
        wrapped = decoder.finish_async(SimpleNamespace(), copies)
        found.append((output.sampled_token_ids, embeddings, output.logprobs_tensors.logprobs, wrapped))
    return found, decoder


def test_no_operation_mixes_devices_and_none_waits(streams: Streams) -> None:
    expected, plain = decode("cpu")
    with fake_cuda() as device:
        found, decoder = decode("cuda", streams.named("copies"))
        assert device.waits == []
        for mine, its in zip(found, expected, strict=True):
            for ours, theirs in zip(mine[:3], its[:3], strict=True):
                assert ours.device == DEVICE and torch.equal(ours.held, theirs)
    said = [ids.held[:, 0].tolist() for ids, *_ in found]
    # a: two slots, full, out again; a second span that stops after one. b: one slot of its own later.
    assert [row[0] for row in said] == [3, 4, 4, 5, 1, 3, 4, 5]
    assert [row[1] for row in said[1:]] == [1, 3, 4, 4, 5, 2, 1]
    store, other = decoder.store, plain.store
    assert store.digest == other.digest != 0
    assert store.entries == other.entries == 4, "all but the latent of the last step but one, which is still under way"


def test_latents_are_copied_after_they_are_made_and_read_after_they_have_come(streams: Streams) -> None:
    with fake_cuda():
        found, _ = decode("cuda", streams.named("copies"))
        made = ["copies waits for compute", "copy on copies", "copy on copies", "record on copies"]
        whole = [step for step, (*_, wrapped) in enumerate(found) if wrapped.step.slot is not None]
        log = [entry for entry in streams.log if entry != "synchronize"]
        # Where no row can have been in a span before it, a step has no latents: its states are copied alone.
        assert log == [entry for step in range(8) for entry in (made if step in whole else made[:2] + made[3:])]
        (*_, last) = found[-1]
        slots, latents, _ = last.on_host()
    assert streams.log[-1] == "synchronize"
    assert slots == [] and latents is None
    slots, latents, open_span = found[-2][3].on_host()
    assert slots == [("a", len(PROMPT) + 6)] and open_span
    assert np.isfinite(latents).all() and not (latents == -99).any()
