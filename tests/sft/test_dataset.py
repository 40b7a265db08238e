import tempfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from verl.utils.tokenizer import hf_processor

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.sft.dataset import LatentSFTDataset
from future_l1_verl.toy import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set")
    write_set(out / "data", Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(out / "model")
    return out


def dataset(folder: Path, rows: Path | None = None, **changed: object) -> LatentSFTDataset:
    processor = hf_processor(str(folder / "model"))
    with tempfile.TemporaryDirectory() as manifest:
        config = {
            "max_latents": 4, "max_length": 512, "system_prompt": None, "supervise_decisions": False, "observed": "frames",
            "video_frames": 4, "targets": "resize", "text_only": False, "cache_dir": None, "max_bad_rate": 0.5,
            "manifest": f"{manifest}/skipped.jsonl", "videos": None,
        } | changed  # fmt: skip
    files = str(rows or folder / "data/train.parquet")
    return LatentSFTDataset(files, processor.tokenizer, OmegaConf.create(config), processor)


def test_each_future_frame_is_a_full_span_and_only_what_is_said_is_supervised(folder: Path) -> None:
    data = dataset(folder)
    tokenizer, t = data.tokenizer, data.tokens
    index = next(i for i, row in enumerate(data.rows) if row.category == "2-hop")
    item, row = data[index], data.rows[index]
    ids, mask = item["input_ids"], item["loss_mask"]
    said = tokenizer.decode(ids[mask.bool()])
    reasons = [part.split("</reason>")[0] for part in row.response.split("<reason>")[1:]]
    span = "<|latent_start|><|latent_end|>"
    assert said == "".join(f"{span}<reason>{r}</reason>" for r in reasons) + f"<answer>{row.truth}</answer><|im_end|>"
    assert int((ids == t.latent).sum()) == 4 * len(row.future)
    assert item["multi_modal_inputs"]["latent_grid_thw"].prod(-1).sum() // 4 == 4 * len(row.future)
    assert tokenizer.decode(ids[: int(mask.argmax())]).endswith("<|im_start|>assistant\n")


def test_decisions_are_every_latent_but_the_first_of_a_span(folder: Path) -> None:
    without, with_them = dataset(folder)[0], dataset(folder, supervise_decisions=True)[0]
    added = (with_them["loss_mask"] - without["loss_mask"]).nonzero()[:, 0].tolist()
    latents = (without["input_ids"] == dataset(folder).tokens.latent).nonzero()[:, 0].tolist()
    assert added == [index for index in latents if index - 1 in latents]


def test_the_text_positions_count_and_the_pictures_are_grids(folder: Path) -> None:
    item = dataset(folder)[0]
    positions, ids = item["position_ids"], item["input_ids"]
    assert positions.shape == (4, len(ids))
    assert positions[0].tolist() == list(range(len(ids)))
    picture = (ids == dataset(folder).processor.image_token_id).nonzero()[:4, 0]
    # A frame of 2 x 2 embeddings: one time, rows 0 0 1 1, columns 0 1 0 1.
    grid = positions[1:, picture] - positions[1:, picture[:1]]
    assert torch.equal(grid, torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]))
