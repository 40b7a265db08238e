"""Rows of both forms: what they become, and a table of what is wrong with bad ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from future_l1_verl.data.clips import Clips, even_numbers
from future_l1_verl.data.reader import read as read_rows
from future_l1_verl.data.rows import Row, RowError
from future_l1_verl.data.skipped import Skipped, counts
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import write_video
from future_l1_verl.sft.conversations import conversation

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip at 4 frames a second whose frame n is all of brightness 20 n, and a picture."""
    out = tmp_path_factory.mktemp("clips")
    shades = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] * 20
    write_video(out / "clip.mp4", np.broadcast_to(shades, (FRAMES, 64, 64, 3)).copy(), 4)
    Image.new("RGB", (32, 32), "red").save(out / "picture.png")
    (out / "empty.mp4").touch()
    return out


def twiff(**changed: Any) -> dict[str, Any]:
    talk = [
        {"from": "human", "value": "<image>See <image>this?"},
        {"from": "gpt", "value": "THOUGHT 1: <image><reason>it moves</reason><answer>left</answer>"},
    ]
    row = {"conversations": talk, "video": "clip.mp4", "image": [1, 3], "reasoning_image": [6], "answer": "left"}
    return row | changed


def chat(**changed: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "<video>What now?"}, {"role": "assistant", "content": "<answer>left</answer>"}]
    return {"messages": said, "videos": ["clip.mp4"]} | changed


def read(folder: Path, skipped: Skipped, *rows: dict[str, Any]) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return skipped.usable(read_rows([path], require=Row.require_response))


def talk(folder: Path, row: dict[str, Any], form: str = "frames", text_only: bool = False, clips: Clips = Clips()):  # noqa: B008
    (found,) = read(folder, Skipped(folder / "skipped.jsonl", 0.0), row)
    return conversation(found, None, form, 4, clips, text_only)


def shade(image: Image.Image) -> int:
    """The number of the frame that an image is."""
    return round(float(np.asarray(image).mean()) / 20)


def test_a_twiff_row_shows_its_frames_and_imagines_the_later_ones(folder: Path) -> None:
    found = talk(folder, twiff())
    (message,) = found.prompt
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["image", "text", "image", "text"]
    # docs/differences.md, row 25: TwiFF's own pool, of 12 frames.
    shown = [shade(part["image"]) for part in message["content"] if part["type"] == "image"]
    assert shown == frame_numbers([1, 3], FRAMES)
    assert [shade(image) for image in found.future] == frame_numbers([6], FRAMES)
    assert found.said == ["", "<reason>it moves</reason><answer>left</answer>"]


def test_as_a_video_the_frames_carry_their_times(folder: Path) -> None:
    (message,) = talk(folder, twiff(), form="video").prompt
    first, video, text = message["content"] if message["content"][0]["type"] == "text" else (None, *message["content"])
    assert first is None and text["text"] == "See this?"
    assert video["seconds"] == [number / 4 for number in frame_numbers([1, 3], FRAMES)]


def test_text_only_says_the_same_and_imagines_nothing(folder: Path) -> None:
    found, control = talk(folder, twiff()), talk(folder, twiff(), text_only=True)
    assert control.future == [] and control.said == ["".join(found.said)]
    assert str(control.prompt[0]["content"][1]) == str(found.prompt[0]["content"][1])


def test_a_chat_row_shows_its_video_evenly_and_says_its_last_message(folder: Path) -> None:
    found = talk(folder, chat())
    video, text = found.prompt[0]["content"]
    # Four of twelve frames: the middles of four parts of three.
    assert [shade(image) for image in video["video"]] == even_numbers(FRAMES, 4) == [1, 4, 7, 10]
    assert text["text"] == "What now?" and found.said == ["<answer>left</answer>"] and found.future == []
    pictured = chat(
        messages=[{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "red"}],
        images=["picture.png"],
        videos=None,
    )
    assert talk(folder, pictured).prompt[0]["content"][0]["image"].getpixel((0, 0)) == (255, 0, 0)


def test_a_cache_gives_the_same_frames_without_decoding_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, first = talk(folder, twiff()), talk(folder, twiff(), clips=Clips(tmp_path))

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("future_l1_verl.data.clips.count_frames", never)
    monkeypatch.setattr("future_l1_verl.data.video._decode", never)
    again = talk(folder, twiff(), clips=Clips(tmp_path))
    for other in (first, again):
        assert [np.asarray(image).tolist() for image in other.future] == [np.asarray(image).tolist() for image in plain.future]


def turns(human: str, gpt: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


# What stage 1 alone asks of a row; tests/data has what is wrong with rows of any kind.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to say": (
        {"problem": "<image>?", "answer": "left", "video": "clip.mp4", "image": [1]}, "no response to learn"),
    "a short answer alone": (
        {"question": "<image>?", "answer": "left", "video": "clip.mp4", "frames": [1], "recon_frames": [3]}, "no response"),
    "no future frame": (twiff(reasoning_image=[], conversations=turns("<image><image>?", "left")), "no future frame"),
    "a future frame without a word": (
        twiff(reasoning_image=[5, 6], conversations=turns("<image><image>?", "<image><image>It moves.")),
        r"future frame without reasoning: \[1\] of 2"),
    "video missing": (twiff(video="gone.mp4"), r"video or image is missing: .*gone\.mp4"),
    "video empty": (twiff(video="empty.mp4"), r"video or image is empty: .*empty\.mp4"),
    "chat with a missing video": (chat(videos=["gone.mp4"]), r"video or image is missing: .*gone\.mp4"),
    "chat with too few videos": (chat(videos=[]), "placeholders do not fit: 0 <image> and 1 <video> in the question"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_stops_no_other(name: str, folder: Path, tmp_path: Path) -> None:
    bad, message = BAD[name]
    skipped = Skipped(tmp_path / "skipped.jsonl", max_rate=0.5)
    found = read(folder, skipped, twiff(), bad, chat())
    assert [row.number for row in found] == [0, 2]
    (listed,) = [json.loads(line) for line in skipped.manifest.read_text().splitlines()]
    assert listed["source"].endswith("row 1")
    with pytest.raises(RowError, match=rf"1 of 3 rows cannot be used, more than data\.max_bad_rate=0\.1:\n.*row 1: {message}"):
        read(folder, Skipped(tmp_path / "strict.jsonl", max_rate=0.1), twiff(), bad, chat())


def broken(folder: Path, content: Callable[[bytes], bytes]) -> str:
    (folder / "broken.mp4").write_bytes(content((folder / "clip.mp4").read_bytes()))
    return "broken.mp4"


@pytest.mark.parametrize("content", [lambda clip: clip[:300], lambda clip: b"no video", lambda clip: clip[::-1]])
def test_a_clip_that_does_not_decode_is_named_when_its_turn_comes(content: Callable[[bytes], bytes], folder: Path) -> None:
    with pytest.raises(RowError, match=r"broken\.mp4: (cannot be decoded|has \d+ frames)"):
        talk(folder, twiff(video=broken(folder, content)))


def test_a_clip_with_too_few_frames_is_named(folder: Path) -> None:
    write_video(folder / "short.mp4", np.zeros((2, 64, 64, 3), dtype=np.uint8), 4)
    with pytest.raises(RowError, match="a frame pool needs a video of at least 3 frames, not 2"):
        talk(folder, twiff(video="short.mp4"))


def test_the_rate_of_rows_that_fail_in_training_ends_it(tmp_path: Path) -> None:
    skipped = Skipped(tmp_path / "skipped.jsonl", max_rate=0.02)
    skipped.seen = 97
    skipped.skip("file: row 1", "too long: 900 tokens")
    skipped.skip("file: row 2", "too long: 901 tokens")
    # Three of a hundred are more than two.
    with pytest.raises(RowError, match=r"3 of 100 rows cannot be used, .*the last: file: row 3: video x: does not decode"):
        skipped.skip("file: row 3", "video x: does not decode")
    skipped.add("file: row 1", "too long: 900 tokens")
    assert counts(skipped.manifest) == {"too long": 2, "video x": 1}


def test_even_numbers_are_the_middles_of_equal_parts() -> None:
    assert even_numbers(100, 4) == [12, 37, 62, 87]
    assert even_numbers(3, 4) == [0, 1, 2]
    assert even_numbers(8, 8) == list(range(8))
