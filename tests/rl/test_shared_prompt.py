"""What is made of a prompt once for all its answers, by verl's worker; stand-ins for the engine and TransferQueue."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from actor_harness import config
from PIL import Image
from transformers import AutoModelForImageTextToText
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling import tiny
from future_l1_verl.rl import group_barrier
from future_l1_verl.rl.agent_loop import LatentAgentLoop, LatentAgentLoopWorker

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
        self.asked.append((list(prompt_ids), request["image_data"], request["video_data"]))
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
        **{"uid": "prompt", "index": 0, "raw_prompt": chat, "agent_name": "latent_agent", "global_steps": 1},
        **{"question": "What is next?", "reward_model": {"ground_truth": "left"}, "options": [], "split": "1-hop"},
    }
    where = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
    asyncio.run(worker._run_prompt(row, {}, where))
    return engine.asked, processed


def as_upstream(patch: pytest.MonkeyPatch) -> None:
    """verl's own way, answer by answer."""
    for name in ("process_multi_modal_info", "ct_build_initial_tokens"):
        patch.setattr(LatentAgentLoop, name, getattr(SingleTurnAgentLoop, name))
    patch.setattr(LatentAgentLoop, "multi_modal_inputs", {}, raising=False)
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
    assert [ids for ids, *_ in asked] == [ids for ids, *_ in asked_by_verl]
    assert {len(row["responses"]) for row in ours} == {5, 6, 7, 8}
    for mine, verls in zip(ours, theirs, strict=True):
        for name in ("input_ids", "prompts", "responses", "position_ids", "loss_mask", "latents"):
            assert torch.equal(mine[name], verls[name]), name
        assert mine["multi_modal_inputs"].keys() == verls["multi_modal_inputs"].keys()
        for name, value in mine["multi_modal_inputs"].items():
            assert torch.equal(value, verls["multi_modal_inputs"][name]), name
        # verl's rows have the frames once more, for reward models of its own, and a video's pixels, for SGLang.
        assert mine.keys() == verls.keys() - {"raw_prompt"} and mine["mm_processor_output"] is None


def test_pixels_are_stored_as_the_rollout_sees_them(
    checkpoint: Path, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoint, "images", monkeypatch)
    run(checkpoint, "images", monkeypatch, "actor_rollout_ref.rollout.dtype=bfloat16")
    wide, narrow = (stored[i]["multi_modal_inputs"] for i in (0, ANSWERS))
    assert torch.equal(narrow["pixel_values"], wide["pixel_values"].bfloat16())
    assert all(torch.equal(narrow[name], wide[name]) for name in wide.keys() - {"pixel_values"})
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
    seen = [
        model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output for inputs in (wide, narrow)
    ]
    assert all(torch.equal(*images) for images in zip(*seen, strict=True))


def test_a_prompt_that_is_too_long_fails_all_its_answers(
    checkpoint: Path, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(checkpoint, "images", monkeypatch, "data.max_prompt_length=8") == ([], 1)
    assert stored == []
    assert caplog.text.count("Error in _run_prompt") == ANSWERS and "exceeding rollout.prompt_length=8" in caplog.text
