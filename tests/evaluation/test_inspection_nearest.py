"""The future frame that a latent is nearest to."""

from __future__ import annotations

import re

import pytest
import torch
from inspection_run import MadeRun, make_run
from PIL import Image
from transformers import AutoModelForImageTextToText

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.reader import read
from future_l1_verl.data.seeing import see
from future_l1_verl.evaluation.inspection import inspect, nearest
from future_l1_verl.evaluation.inspection.nearest import Tower, unseen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("nearest"))


def test_frames_are_embedded_as_stage_1_made_its_targets(run: MadeRun) -> None:
    pytest.importorskip("verl", reason="this set of versions has no verl")
    from omegaconf import OmegaConf
    from verl.utils.tokenizer import hf_processor

    from future_l1_verl.sft.dataset import LatentSFTDataset

    root = run.folder.parent
    processor = hf_processor(str(root / "model"))
    config = {
        "max_latents": 4, "max_length": 512, "system_prompt": None, "supervise_decisions": False, "observed": "frames",
        "video_frames": 4, "targets": "resize", "text_only": False, "cache_dir": None, "max_bad_rate": 0.5,
        "manifest": str(root / "skipped.jsonl"), "videos": None,
    }  # fmt: skip
    data = LatentSFTDataset(str(root / "data/train.parquet"), processor.tokenizer, OmegaConf.create(config), processor)
    item = data[0]["multi_modal_inputs"]
    visual = AutoModelForImageTextToText.from_pretrained(root / "model").model.visual
    with torch.no_grad():
        targets = visual(item["latent_pixel_values"], grid_thw=item["latent_grid_thw"]).pooler_output
    future = see(next(read([root / "data/train.parquet"])), Clips()).future
    embedded = Tower(root / "model").embed([frame.image for frame in future])
    torch.testing.assert_close(embedded.flatten(0, 1), targets)


@pytest.mark.parametrize(("size", "shrunk"), [((256, 256), (64, 64)), ((1280, 320), (128, 32))])
def test_frames_of_any_size_are_shrunk_to_the_grid_of_a_span(
    run: MadeRun, size: tuple[int, int], shrunk: tuple[int, int]
) -> None:
    """An embedding is 32 x 32 pixels; four are laid out as two by two or as four by one. A plain picture stays what it is."""
    tower = Tower(run.folder.parent / "model")
    large, small = (tower.embed([Image.new("RGB", of, (200, 40, 90))]) for of in (size, shrunk))
    assert large.shape == (1, 4, 128)
    torch.testing.assert_close(large, small)


def test_batches_do_not_change_embeddings(run: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = see(next(read([run.folder.parent / "data/test.parquet"])), Clips()).observed
    images = [frame.image for frame in pictures][:3]
    tower = Tower(run.folder.parent / "model")
    whole = tower.embed(images)
    monkeypatch.setattr(nearest, "BATCH", 2)
    torch.testing.assert_close(tower.embed(images), whole)


def test_a_latent_is_compared_with_the_embeddings_at_its_own_place() -> None:
    x, y = torch.eye(2)
    candidates = torch.stack([torch.stack([x, y]), torch.stack([y, x])])
    # y stands first in frame 1 and second in frame 0; lengths do not count.
    first, second = nearest.nearest(torch.stack([y, 3 * y]), candidates)
    assert (first.frame, second.frame) == (1, 0)
    assert (first.cosine, second.cosine) == pytest.approx((1, 1))
    # A span shorter than the budget has the first places.
    (only,) = nearest.nearest(torch.tensor([[3.0, 4.0]]), candidates)
    assert (only.frame, only.cosine) == (1, pytest.approx(4 / 5))


def test_the_page_shows_the_frame_that_a_span_imagined(run: MadeRun) -> None:
    text = inspect(run.folder, methods=[]).read_text()
    articles = dict(re.findall(r'<article[^>]* id="row-(\d+)"(.*?)</article>', text, flags=re.DOTALL))
    for row, imagined in run.imagined.items():
        cells = re.findall(r'alt="nearest: frame (\d+)".*?</i> (-?[\d.]+)', articles[str(row)], flags=re.DOTALL)
        per_span = zip(imagined, run.records[row].spans, strict=True)
        assert cells == [(str(frame), "1.00") for frame, latents in per_span for _ in range(latents)]
    assert len(run.imagined) > 3


def test_unseen_frames_are_those_of_the_pool_after_the_shown_ones() -> None:
    # 34 frames: the pool is 1, the middles of six parts of 2..32, and 32.
    pool = [1, 4, 9, 14, 19, 24, 29, 32]
    assert unseen(pool[:4], 34) == pool[4:]
    assert unseen([*pool[:4], pool[6]], 34) == [pool[4], pool[5], pool[7]]  # what lies between is asked for
    assert unseen([0, 5, 10, 15], 34) == [19, 24, 29, 32]  # frames that are not the pool's
    assert unseen([], 34) == pool
