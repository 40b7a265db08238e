"""A question as a chat: which frames are shown, and what the hash of a prompt depends on."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_rows import changed, question, style
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.data.clips import even_numbers
from future_l1_verl.data.rows import Row, RowError
from future_l1_verl.data.video import read_frames, write_video
from future_l1_verl.evaluation.choices import STYLES
from future_l1_verl.evaluation.prompting import Prompt, Style, most_frames
from future_l1_verl.evaluation.prompting import prompt as styled_prompt
from future_l1_verl.modeling.trained_as import TrainedAs, default_prompt

STEP = 6


def write_clip(path: Path, count: int, changed: tuple[int, int] | None = None) -> Path:
    """Frame f is grey of level 6 f. ``changed`` is a frame and how many of its pixels are white."""
    frames = np.zeros((count, 32, 48, 3), np.uint8) + (STEP * np.arange(count, dtype=np.uint8))[:, None, None, None]
    if changed is not None:
        frames[changed[0], 0, : changed[1]] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, 24)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    folder = tmp_path_factory.mktemp("clips")

    def clip(count: int) -> Path:
        path = folder / f"{count}.mp4"
        return path if path.exists() else write_clip(path, count)

    return clip


def whole_clip(video: Path, **changes: Any) -> Row:
    return question(**{
        "number": 3, "source": "rows.json: row 3", "id": "q3", "split": "1-hop", "text": "What now?", "truth": "B",
        "options": ["up", "down"], "video": str(video), "image": None, "future": [],
    } | changes)  # fmt: skip


def pool_frames(video: Path, image: list[int], **changes: Any) -> Row:
    return whole_clip(video, **{"text": "<image>" * len(image) + "What now?", "image": image} | changes)


def prompt(row: Row, system: str | None, most: int, **how: Any) -> Prompt:
    return styled_prompt(row, style(system, **how), most)


def shown(made: Prompt) -> list[int]:
    """The numbers of the frames in the chat, by their greys."""
    images = [part["image"] for part in made.chat[-1]["content"] if part["type"] == "image"]
    return [round(float(np.asarray(image).mean()) / STEP) for image in images]


# Middles of equal parts of the clip, by hand.
EVEN = [
    (40, 4, [5, 15, 25, 35]),
    (20, 8, [1, 3, 6, 8, 11, 13, 16, 18]),
    (40, 1, [20]),
    (33, 32, [*range(16), *range(17, 33)]),
    (32, 32, list(range(32))),
    (5, 32, [0, 1, 2, 3, 4]),
    (1, 32, [0]),
]


@pytest.mark.parametrize(("count", "most", "numbers"), EVEN)
def test_frames_of_a_whole_clip_are_the_middles_of_equal_parts(
    clips: Callable[[int], Path], count: int, most: int, numbers: list[int]
) -> None:
    made = prompt(whole_clip(clips(count)), None, most)
    assert made.frames == shown(made) == numbers
    assert [part["type"] for part in made.chat[0]["content"]] == ["image"] * len(numbers) + ["text"]
    assert made.chat[0]["content"][-1]["text"] == "What now?"


@given(st.integers(1, 5000), st.integers(1, 64))
def test_frames_are_at_most_so_many_in_order_and_evenly_spread(count: int, most: int) -> None:
    numbers = even_numbers(count, most)
    assert len(numbers) == min(count, most) and numbers == sorted(set(numbers))
    assert all(0 <= number < count for number in numbers)
    part = Fraction(count, len(numbers))
    # Each frame covers the middle of its part.
    assert all(number <= (i + Fraction(1, 2)) * part <= number + 1 for i, number in enumerate(numbers))


def test_pool_frames_are_those_of_training_in_the_order_of_the_row(clips: Callable[[int], Path]) -> None:
    # The pool of 20 frames is 1, 2, 5, 8, 10, 13, 16, 18.
    asked = pool_frames(clips(20), [4, 1, 8], text="First <image>, then <image>, then <image>: what now?", future=[5, 7])
    made = prompt(asked, None, 1)  # the row names its frames: no bound
    assert made.frames == shown(made) == [8, 1, 18]
    assert made.future == [10, 16]
    said = [part.get("text", "<image>") for part in made.chat[0]["content"]]
    assert said == ["First ", "<image>", ", then ", "<image>", ", then ", "<image>", ": what now?"]


def test_the_system_prompt_comes_first_or_not_at_all(clips: Callable[[int], Path]) -> None:
    asked = pool_frames(clips(20), [1])
    assert [message["role"] for message in prompt(asked, "Answer.", 32).chat] == ["system", "user"]
    assert prompt(asked, "Answer.", 32).chat[0]["content"] == [{"type": "text", "text": "Answer."}]
    assert [message["role"] for message in prompt(asked, None, 32).chat] == ["user"]


def test_styles_ask_for_the_same_tags_and_only_one_for_latents() -> None:
    trained = TrainedAs(default_prompt(text_only=False), "frames", "interleaved")
    said = {name: Style.for_checkpoint(name, trained, has_latents=True) for name in STYLES}
    for made in said.values():
        assert made.system == made.system.strip() and "<answer> and </answer>" in made.system
    assert {name for name, made in said.items() if made.spans} == {"latent", "letter"}
    assert {name for name, made in said.items() if made.after} == {"letter"}
    assert said["latent"].system == said["letter"].system == trained.system_prompt


@pytest.mark.parametrize("observed", ["frames", "video"])
@pytest.mark.parametrize("shape", ["interleaved", "latent_first", "text_only"])
def test_a_checkpoint_is_asked_as_it_was_trained(shape: str, observed: str) -> None:
    """The text-only baseline above all: by its own prompt, and without spans, though it has the tokens."""
    trained = TrainedAs("Say what follows.", observed, shape)
    made = Style.for_checkpoint(None, trained, has_latents=True)
    assert (made.system, made.observed, made.spans) == ("Say what follows.", observed, shape != "text_only")
    # What never heard of latents is asked in text.
    plain = Style.for_checkpoint(None, TrainedAs(default_prompt(text_only=True), "frames", "text_only"), has_latents=False)
    assert (plain.name, plain.system, plain.spans) == ("text_only", default_prompt(text_only=True), False)


def test_what_comes_after_a_question_is_said_last(clips: Callable[[int], Path]) -> None:
    asked = pool_frames(clips(20), [1])
    made = prompt(asked, None, 32, after="Only the letter.")
    assert made.chat[0]["content"][-1]["text"] == "What now?\nOnly the letter."
    assert made.sha256 != prompt(asked, None, 32).sha256


def test_as_a_video_the_frames_have_their_times(clips: Callable[[int], Path]) -> None:
    """The clip has 24 frames a second."""
    for asked, numbers in ((pool_frames(clips(20), [4, 8]), [8, 18]), (whole_clip(clips(20)), [2, 7, 12, 17])):
        made = prompt(asked, None, 4, observed="video")
        video, text = made.chat[0]["content"]
        assert video["seconds"] == pytest.approx([number / 24 for number in numbers])
        assert text["text"] == "What now?" and made.frames == numbers
        assert made.sha256 != prompt(asked, None, 4).sha256


def test_the_most_frames_of_a_question(clips: Callable[[int], Path]) -> None:
    assert most_frames([pool_frames(clips(20), [1, 2, 3])], 32) == 3
    assert most_frames([pool_frames(clips(20), [1, 2, 3]), whole_clip(clips(20))], 32) == 32


# The hash


def test_the_hash_depends_on_nothing_that_is_not_shown(clips: Callable[[int], Path], tmp_path: Path) -> None:
    elsewhere = write_clip(tmp_path / "another/name.mp4", 20)
    other = {
        "number": 4, "source": "other.json: row 4", "id": "q4", "split": "2-hop", "truth": "A", "options": [],
        "video": str(elsewhere), "future": [7],
    }  # fmt: skip
    for asked in (whole_clip(clips(20)), pool_frames(clips(20), [1, 4])):
        sha256 = prompt(asked, "Answer.", 32).sha256
        for name, value in other.items():
            assert prompt(changed(asked, **{name: value}), "Answer.", 32).sha256 == sha256, name
        assert prompt(asked, "Answer.", 64).sha256 == sha256  # all 20 frames either way
        assert len(sha256) == 64


def test_the_hash_is_that_of_the_frames_however_they_were_named(clips: Callable[[int], Path]) -> None:
    by_pool, by_number = prompt(pool_frames(clips(20), [5]), None, 32), prompt(whole_clip(clips(20)), None, 1)
    assert by_pool.frames == by_number.frames == [10]
    assert by_pool.sha256 == by_number.sha256


def test_the_hash_depends_on_all_that_is_shown(clips: Callable[[int], Path]) -> None:
    asked = pool_frames(clips(20), [1, 4])
    prompts = [
        prompt(asked, "Answer.", 32),
        prompt(asked, "Answer!", 32),
        prompt(asked, None, 32),
        prompt(changed(asked, text="<image><image>What now"), "Answer.", 32),
        prompt(changed(asked, text="<image>What now?<image>"), "Answer.", 32),
        prompt(changed(asked, image=[4, 1]), "Answer.", 32),
        prompt(changed(asked, image=[1, 5]), "Answer.", 32),
        prompt(changed(asked, image=[1], text="<image>What now?"), "Answer.", 32),
        prompt(whole_clip(clips(20)), "Answer.", 32),
        prompt(whole_clip(clips(20)), "Answer.", 4),
        # Where one part ends and the next begins counts as well.
        prompt(changed(asked, text=" First:<image><image>What now?"), "Answer.", 32),
        prompt(asked, "Answer. First:", 32),
    ]
    assert len({made.sha256 for made in prompts}) == len(prompts)


def test_one_pixel_makes_another_hash(tmp_path: Path) -> None:
    plain, dotted = write_clip(tmp_path / "plain.mp4", 8), write_clip(tmp_path / "dotted.mp4", 8, changed=(7, 1))
    (before,), (after,) = read_frames(plain, [7]), read_frames(dotted, [7])
    # The codec spreads a pixel over its block at most.
    assert 0 < (np.asarray(before) != np.asarray(after)).any(axis=-1).sum() <= 64
    # The pool leaves the last frame out.
    hashes = [prompt(pool_frames(clip, [1, 8]), None, 32).sha256 for clip in (plain, dotted)]
    assert hashes[0] == hashes[1]
    hashes = [prompt(whole_clip(clip), None, 32).sha256 for clip in (plain, dotted)]
    assert hashes[0] != hashes[1]


def test_frames_of_another_shape_make_another_hash(tmp_path: Path) -> None:
    """The bytes of a black frame say nothing of its sides."""
    for name, shape in (("wide", (32, 48)), ("tall", (48, 32))):
        write_video(tmp_path / f"{name}.mp4", np.zeros((1, *shape, 3), np.uint8), 24)
    wide, tall = (prompt(whole_clip(tmp_path / f"{name}.mp4"), None, 1) for name in ("wide", "tall"))
    pixels = [made.chat[0]["content"][0]["image"].tobytes() for made in (wide, tall)]
    assert pixels[0] == pixels[1] and wide.sha256 != tall.sha256


# Clips that cannot be shown


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: whole_clip(folder / "none.mp4"), r"none\.mp4: no such file"),
        (lambda folder: whole_clip(folder / "text.mp4"), r"text\.mp4: cannot be decoded"),
        (lambda folder: pool_frames(write_clip(folder / "two.mp4", 2), [1]), "at least 3 frames, not 2"),
        (lambda folder: whole_clip(write_clip(folder / "two.mp4", 2), future=[5]), "at least 3 frames, not 2"),
        (lambda folder: pool_frames(write_clip(folder / "ten.mp4", 10), [9]), r"frames go outside 1\.\.8: \[9\]"),
    ],
)
def test_a_clip_that_cannot_be_shown_is_named_with_its_row(make: Callable[[Path], Row], says: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(RowError, match=says):
        prompt(make(tmp_path), None, 32)


def test_a_clip_of_no_frames_is_no_question_about_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    monkeypatch.setattr("future_l1_verl.data.seeing.Clips.count", lambda *_: 0)
    with pytest.raises(RowError, match=r"video has no frame to show: .*empty\.mp4"):
        prompt(whole_clip(tmp_path / "empty.mp4"), None, 32)
