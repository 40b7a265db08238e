"""Ten bad rows of forty cost stage 1 these ten and no other, whether they are found as rows are read or as their turn comes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import bad_files
import pytest
import torch
from bad_files import pattern
from omegaconf import OmegaConf
from torch.utils.data import DataLoader
from verl.utils.tokenizer import hf_processor

from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import counts
from future_l1_verl.sft.dataset import LatentSFTDataset
from future_l1_verl.toy import tiny

ROWS, BAD_ROWS = 40, 10
MAX_LENGTH = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = bad_files.write(tmp_path_factory.mktemp("set"))
    tiny.build(out / "model")
    return out


def twiff(number: int, asked: str = "<image>Row {}?", said: str = "<image>It falls.", **changed: Any) -> dict[str, Any]:
    talk = [{"from": "human", "value": asked.replace("{}", str(number))}, {"from": "gpt", "value": said}]
    row = {"conversations": talk, "video": "clip.mp4", "image": [1 + number % 3], "reasoning_image": [5], "answer": "left"}
    return row | changed


def chat(number: int, shown: str = "<image>", said: str = "<answer>left</answer>", **files: list[str]) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"{shown}Row {number}?"}, {"role": "assistant", "content": said}]
    return {"messages": turns} | files


def clip(number: int, video: str) -> dict[str, Any]:
    return chat(number, "<video>", videos=[video])


def picture(number: int, image: str) -> dict[str, Any]:
    return chat(number, images=[image])


def good(number: int) -> dict[str, Any]:
    return [twiff(number), clip(number, "clip.mp4"), picture(number, "picture.png")][number % 3]


# What is wrong, as a function of the row's number, and the reason. "at its turn": found only when it is decoded.
AT_ITS_TURN = [
    (lambda n: picture(n, "tall.png"), "row cannot be prepared: ValueError: absolute aspect ratio"),
    (lambda n: picture(n, "chunk.png"), "video or image cannot be shown: .*chunk.png: is no picture"),
    (lambda n: picture(n, "cut.jpg"), "video or image cannot be shown: .*cut.jpg: cannot be read"),
    (lambda n: picture(n, "bomb.png"), "video or image cannot be shown: .*bomb.png: cannot be read (DecompressionBombError: "),
    (lambda n: twiff(n, video="broken.mp4"), "video or image cannot be shown: .*broken.mp4: cannot be decoded"),
    (lambda n: twiff(n, asked="<image>{}" + " left" * MAX_LENGTH), "too long: "),
    # Of the same kinds, but not what was reported.
    (lambda n: picture(n, "flat.png"), "row cannot be prepared: ValueError: absolute aspect ratio"),
    (lambda n: picture(n, "text.png"), "video or image cannot be shown: .*text.png: is no picture"),
    (lambda n: picture(n, "cut.png"), "video or image cannot be shown: .*cut.png: cannot be read"),
    (lambda n: clip(n, "text.mp4"), "video or image cannot be shown: .*text.mp4: cannot be decoded"),
    (lambda n: clip(n, "sound.mp4"), "video or image cannot be shown: .*sound.mp4: holds no video stream"),
    (lambda n: clip(n, "untimed.h264"), "a video needs frames with times"),
    (
        lambda n: twiff(n, video="short.mp4"),
        "video or image cannot be shown: .*a frame pool needs a video of at least 3 frames, not 2",
    ),
    (lambda n: chat(n, said="<answer>" + "left " * MAX_LENGTH + "</answer>", images=["picture.png"]), "too long: "),
]
AS_READ = [
    (lambda n: twiff(n, asked="<image>Row {}<|image_pad|>?"), "text holds a special token: <|image_pad|>"),
    (lambda n: twiff(n, said="<image>It <|video_pad|> falls."), "text holds a special token: <|video_pad|>"),
    (lambda n: chat(n, said="<|latent|>left", images=["picture.png"]), "text holds a special token: <|latent|>"),
    (lambda n: twiff(n, asked="<image>Row {}\ud800?"), "text is not Unicode: "),
    (lambda n: twiff(n, video="gone.mp4"), "video or image is missing: "),
    (lambda n: twiff(n, said="<image>It falls.<image>", reasoning_image=[5, 6]), "future frame without reasoning: "),
    # Of the same kinds, but not what was reported.
    (lambda n: twiff(n, asked="<image>Row {}<|im_end|>?"), "text holds a special token: <|im_end|>"),
    (lambda n: chat(n, said="<|latent_start|>left", images=["picture.png"]), "text holds a special token: <|latent_start|>"),
    (lambda n: twiff(n, answer=3), "answer is not a string: 3"),
    (lambda n: twiff(n, image=[1.0]), "image is not a list of frame numbers: "),
    (lambda n: twiff(n, video="x" * 300 + ".mp4"), "video or image is missing: "),
    (lambda n: {"question": "?", "answer": "left", "response": 5, "video": "clip.mp4", "frames": [1], "recon_frames": [3]},
     "response is not a string: 5"),
    (lambda n: chat(n, videos=["empty.mp4"], shown="<video>"), "video or image is empty: "),
    (lambda n: [n], "row is not an object with fields: "),
]  # fmt: skip
SETS = {
    "reported": AT_ITS_TURN[:6] + AS_READ[2:6],
    "reported, and of the same kinds": AT_ITS_TURN[6:11] + AS_READ[:2] + AS_READ[6:9],
    "of the same kinds": AT_ITS_TURN[11:] + AS_READ[9:] + AT_ITS_TURN[4:6],
}


def dataset(folder: Path, out: Path, bad: list[Any], max_bad_rate: float) -> tuple[LatentSFTDataset, dict[int, str]]:
    """Stage 1's data of forty rows, and the reasons why those of ``bad`` cannot be used, by number; every fourth is bad."""
    wrong = {4 * place: item for place, item in enumerate(bad)}
    rows = [wrong[number][0](number) if number in wrong else good(number) for number in range(ROWS)]
    file = folder / f"{out.name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = OmegaConf.create({
        "max_latents": 4, "max_length": MAX_LENGTH, "system_prompt": None, "supervise_decisions": False, "observed": "frames",
        "video_frames": 4, "targets": "resize", "text_only": False, "cache_dir": None, "max_bad_rate": max_bad_rate,
        "manifest": str(out / "skipped.jsonl"), "videos": None,
    })  # fmt: skip
    processor = hf_processor(str(folder / "model"))
    reasons = {number: reason for number, (_, reason) in wrong.items()}
    return LatentSFTDataset(str(file), processor.tokenizer, config, processor), reasons


@pytest.mark.parametrize("name", SETS)
def test_thirty_of_forty_rows_are_given_and_ten_listed_with_their_reasons(name: str, folder: Path, tmp_path: Path) -> None:
    data, reasons = dataset(folder, tmp_path, SETS[name], max_bad_rate=0.3)
    assert len(reasons) == BAD_ROWS
    tokenizer, given = data.tokenizer, set()
    for item in DataLoader(data, batch_size=None, num_workers=1):
        given.add(int(re.search(r"Row (\d+)\?", tokenizer.decode(item["input_ids"]))[1]))
        assert len(item["input_ids"]) == len(item["loss_mask"]) == item["position_ids"].shape[1] <= MAX_LENGTH
        assert torch.isfinite(item["multi_modal_inputs"].get("pixel_values", torch.zeros(1))).all()
    assert given == set(range(ROWS)) - reasons.keys()
    listed = [json.loads(line) for line in Path(data.config.manifest).read_text().splitlines()]
    # The loader's worker lists no row that was listed before it started.
    assert sorted(int(row["source"].rpartition(" ")[2]) for row in listed) == sorted(reasons)
    for row in listed:
        assert re.match(pattern(reasons[int(row["source"].rpartition(" ")[2])]), row["reason"]), row
    assert counts(data.config.manifest).total() == BAD_ROWS


def test_more_than_may_be_are_refused_by_name_as_they_are_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RowError, match=r"10 of 40 rows cannot be used, more than data\.max_bad_rate=0\.01:\n.*: row 0: "
    ) as error:
        dataset(folder, tmp_path, AS_READ[:BAD_ROWS], max_bad_rate=0.01)
    for number, (_, reason) in enumerate(AS_READ[:BAD_ROWS]):
        assert re.search(rf"\.jsonl: row {4 * number}: {pattern(reason)}", str(error.value))


def test_more_than_may_be_end_the_training_in_which_they_are_met(folder: Path, tmp_path: Path) -> None:
    """Through the loader's worker, and not before a hundred rows were seen."""
    data, _ = dataset(folder, tmp_path, AT_ITS_TURN[:BAD_ROWS], max_bad_rate=0.01)
    assert len(data) == ROWS
    seen = 0
    with pytest.raises(RowError, match=r"rows cannot be used, more than data\.max_bad_rate=0\.01; .*; the last: .*: row \d+: "):
        for _ in DataLoader(data, batch_size=None, sampler=list(range(ROWS)) * 5, num_workers=1):
            seen += 1
    assert seen >= 100 - 3 * BAD_ROWS
    assert counts(data.config.manifest).total() == BAD_ROWS
