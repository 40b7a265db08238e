"""What is made of a prompt once for all its answers, by verl's worker; stand-ins for the engine and TransferQueue."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from actor_harness import config
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rl import group_barrier
from future_l1_verl.rl.agent_loop import LatentAgentLoop, LatentAgentLoopWorker
from future_l1_verl.toy import tiny

ANSWERS = 4
FRAMES = [Image.fromarray(pixels) for pixels in np.random.default_rng(0).integers(0, 255, (4, 64, 96, 3), dtype=np.uint8)]
SHOWN = {
    "text": [],
    "images": [{"type": "image", "image": frame} for frame in FRAMES],
    "video": [{"type": "video", "video": FRAMES, "seconds": [0.0, 0.5, 1.0, 1.5]}],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.build(out)
    return out


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows that reach TransferQueue."""
    rows: list[dict[str, Any]] = []

    async def batch_put(fields: Any, **_: Any) -> None:
        rows.extend(fields)

    async def put(**_: Any) -> None: ...

    queue = SimpleNamespace(init=lambda: None, async_kv_put=put, async_kv_batch_put=batch_put)
    monkeypatch.setattr(agent_loop_tq, "tq", queue)
    monkeypatch.setattr(group_barrier, "tq", queue)
    monkeypatch.setattr(agent_loop_tq, "list_of_dict_to_tensordict", lambda fields: fields)
    return rows


class Engine:
    """Answers with a span of two latents and as many words as there were questions."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokens, self.asked = LatentSettings.from_checkpoint(checkpoint).tokens, []

    async def generate(self, prompt_ids: list[int], **request: Any) -> TokenOutput:
        frames = [np.asarray(frame).tobytes() for frame in request["image_data"] or ()]
        videos = [(video.numpy().tobytes(), metadata) for video, metadata in request["video_data"] or ()]
        self.asked.append((list(prompt_ids), frames, videos))
        t = self.tokens
        ids = [t.start, t.latent, t.latent, t.end, *[20] * len(self.asked)]
        return TokenOutput(token_ids=ids, log_probs=[0.0] * len(ids), extra_fields={"latents": torch.ones(2, 128)})


def run(checkpoint: Path, shown: str, patch: pytest.MonkeyPatch, *overrides: str) -> tuple[list, int]:
    """What the engine was asked, and how often images or a video were processed."""
    engine, processed = Engine(checkpoint), 0
    worker = LatentAgentLoopWorker(config(checkpoint, f"actor_rollout_ref.rollout.n={ANSWERS}", *overrides), engine)

    def counting(preprocess: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal processed
            processed += 1
            return preprocess(*args, **kwargs)

        return counted

    for part in (worker.processor.image_processor, worker.processor.video_processor):
        patch.setattr(part, "preprocess", counting(part.preprocess))
    chat = [{"role": "user", "content": [*SHOWN[shown], {"type": "text", "text": "What is next?"}]}]
    row = {
        **{"uid": "prompt", "index": 7, "raw_prompt": chat, "agent_name": "latent_agent", "global_steps": 1},
        **{"question": "What is next?", "reward_model": {"ground_truth": "left"}, "options": [], "split": "1-hop"},
    }
    where = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
    asyncio.run(worker._run_prompt(row, {}, where))
    return engine.asked, processed


def as_upstream(patch: pytest.MonkeyPatch) -> None:
    """verl's own way, answer by answer."""
    for name in ("process_multi_modal_info", "ct_build_initial_tokens"):
        patch.setattr(LatentAgentLoop, name, getattr(SingleTurnAgentLoop, name))
    patch.setattr(LatentAgentLoop, "multi_modal_inputs", {}, raising=False)  # what `run` looks for
    patch.setattr(LatentAgentLoopWorker, "_compute_multi_modal_inputs", AgentLoopWorker._compute_multi_modal_inputs)
    patch.setattr(LatentAgentLoopWorker, "_agent_loop_postprocess", group_barrier._Worker._agent_loop_postprocess)


@pytest.mark.parametrize("shown", SHOWN)
def test_rows_are_verls_own_and_frames_are_processed_once(
    shown: str, checkpoint: Path, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, processed = run(checkpoint, shown, monkeypatch)
    ours = sorted(stored, key=lambda row: len(row["responses"]))
    stored.clear()
    as_upstream(monkeypatch)
    asked_by_verl, processed_by_verl = run(checkpoint, shown, monkeypatch)
    theirs = sorted(stored, key=lambda row: len(row["responses"]))

    assert (processed, processed_by_verl) == ((0, 0) if shown == "text" else (1, 2 * ANSWERS))
    assert [len(asked), len(ours)] == [ANSWERS, ANSWERS]
    assert asked == asked_by_verl
    assert {len(row["responses"]) for row in ours} == {5, 6, 7, 8}
    for mine, verls in zip(ours, theirs, strict=True):
        for name in ("input_ids", "prompts", "responses", "position_ids", "loss_mask", "latents"):
            assert torch.equal(mine[name], verls[name]), name
        inputs, theirs_too = mine["multi_modal_inputs"], verls["multi_modal_inputs"]
        pixels = {name for name in theirs_too if name.startswith("pixel")}
        # images_seqlens is read by verl's older trainer only.
        assert inputs.keys() - pixels == theirs_too.keys() - {"images_seqlens"} - pixels
        assert all(torch.equal(value, theirs_too[name]) for name, value in inputs.items())
        # verl's rows have the frames once more, for reward models of its own, and a video's pixels, for SGLang.
        assert mine.keys() == verls.keys() - {"raw_prompt"} and mine["mm_processor_output"] is None
    carriers = [sum(name.startswith("pixel") for name in row["multi_modal_inputs"]) for row in ours]
    assert sorted(carriers) == [0, 0, 0, 0 if shown == "text" else 1]


def stored_bytes(row: Any) -> int:
    """Of the tensors in a row."""
    if isinstance(row, torch.Tensor):
        return row.numel() * row.element_size()
    return sum(map(stored_bytes, row.values())) if isinstance(row, dict) else 0


@pytest.mark.parametrize("shown", ["images", "video"])
def test_eight_answers_are_stored_in_a_seventh_of_verls_bytes(
    shown: str, checkpoint: Path, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    eight = "actor_rollout_ref.rollout.n=8"
    run(checkpoint, shown, monkeypatch, eight)
    ours = sum(map(stored_bytes, stored))
    stored.clear()
    as_upstream(monkeypatch)
    run(checkpoint, shown, monkeypatch, eight)
    assert len(stored) == 8 and sum(map(stored_bytes, stored)) >= 7 * ours


def test_pixels_are_rounded_to_the_rollouts_dtype_and_nothing_else_is(
    checkpoint: Path, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoint, "images", monkeypatch)
    run(checkpoint, "images", monkeypatch, "actor_rollout_ref.rollout.dtype=bfloat16")
    wide, narrow = (stored[i]["multi_modal_inputs"] for i in (0, ANSWERS))
    assert torch.equal(narrow["pixel_values"], wide["pixel_values"].bfloat16())
    assert torch.equal(narrow["image_grid_thw"], wide["image_grid_thw"]) and narrow.keys() == wide.keys()


@pytest.mark.parametrize("shown", SHOWN)
def test_a_prompt_that_is_too_long_fails_all_its_answers_and_names_its_row(
    shown: str,
    checkpoint: Path,
    stored: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, _ = run(checkpoint, shown, monkeypatch, "data.max_prompt_length=8")
    assert asked == stored == []
    assert caplog.text.count("Error in _run_prompt") == ANSWERS
    assert re.search(r"the prompt of row 7 has \d+ tokens, data.max_prompt_length is 8", caplog.text)
