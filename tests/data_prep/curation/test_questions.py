"""What a model is shown of a candidate: which frames of its clip, in which order, between which words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.curation.candidates import Candidate
from data_prep.curation.questions import Prompts, decode, seeds
from data_prep.curation.scores import CONDITIONS
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.video import read_frames, write_video

# TwiFF's pools: 0-based frame numbers by the number of frames in the clip.
POOLS = {12: [1, 2, 3, 4, 6, 7, 8, 10], 100: [1, 9, 25, 41, 57, 73, 89, 98]}
STEP = 22  # between the shades of two digits
ROOMY = 10**6  # pixels, more than any frame here has

Shown = list[str | int]


def clip(file: Path, count: int, width: int = 32, height: int = 32) -> Path:
    """A clip whose frames say their number: the shade of the left half is its tens, that of the right half its ones."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[:, : width // 2], frame[:, width // 2 :] = (20 + STEP * digit for digit in divmod(number, 10))
    write_video(file, frames, 10)
    return file


def number_of(image: Image.Image) -> int:
    """The number of a frame of such a clip; its shades have to be nearer to those written than any others could be."""
    pixels = np.asarray(image, dtype=float)
    tens, ones = (np.ptp(half) < STEP / 2 and (half.mean() - 20) / STEP for half in np.split(pixels, 2, axis=1))
    assert max(abs(tens - round(tens)), abs(ones - round(ones))) < 0.25
    return 10 * round(tens) + round(ones)


def candidate(**changes: Any) -> Candidate:
    return {
        "id": "q",
        "source": "made.parquet: row 4",
        "video": "clip.mp4",
        "question": "Frame <image>, frame <image> and frame <image>: which wall?",
        "answer": "left",
        "options": [],
        "image": [1, 2, 3],
        "reasoning_image": [5, 7],
        "response": "",
        "category": "",
    } | changes


def shown(content: list[dict[str, Any]]) -> Shown:
    """The parts of a message: texts, and frames by their numbers."""
    return [part["text"] if part["type"] == "text" else number_of(part["image"]) for part in content]


def filled(template: str, texts: dict[str, Shown]) -> Shown:
    """What a template shows with ``texts`` in its placeholders; neighbouring texts are one."""
    parts: Shown = []
    for piece in template.replace("{", "}").split("}"):
        for part in texts.get(piece, [piece]):
            if parts and isinstance(part, str) and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
    return [part for part in parts if part != ""]


@pytest.mark.parametrize("own", [False, True], ids=["ours", "a user's"])
@pytest.mark.parametrize("count", POOLS)
def test_frames_stand_where_the_template_says_and_no_future_ones_in_base(count: int, own: bool, tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", count)
    files = {}
    for condition, text in (("base", "Look. {question} Answer."), ("hint", "{question} Then: {future}. Answer.")):
        files[condition] = tmp_path / f"{condition}.txt"
        files[condition].write_text(text)
    prompts = Prompts.read(**files) if own else Prompts.read()
    frames = decode(candidate(), tmp_path, ROOMY)

    observed, future = ([POOLS[count][index - 1] for index in indices] for indices in ([1, 2, 3], [5, 7]))
    question: Shown = ["Frame ", observed[0], ", frame ", observed[1], " and frame ", observed[2], ": which wall?"]
    chats = {condition: prompts.chat(condition, candidate(), frames) for condition in CONDITIONS}
    assert [[message["role"] for message in chats[condition]] for condition in CONDITIONS] == [["user"], ["user"]]
    base, hint = (shown(chats[condition][0]["content"]) for condition in CONDITIONS)
    assert base == filled(prompts.base, {"question": question})
    assert hint == filled(prompts.hint, {"question": question, "future": future})
    assert [part for part in base if isinstance(part, int)] == observed
    assert [part for part in hint if isinstance(part, int)] == observed + future
    assert not set(future) & set(base)


def test_a_candidate_without_observed_frames_is_asked_in_words(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", 12)
    one = candidate(question="Which wall?", image=[])
    frames = decode(one, tmp_path, ROOMY)
    chats = [Prompts("{question}", "{question} {future}").chat(condition, one, frames) for condition in CONDITIONS]
    assert [shown(chat[0]["content"]) for chat in chats] == [["Which wall?"], ["Which wall? ", POOLS[12][4], POOLS[12][6]]]


def test_a_system_prompt_comes_first(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", 12)
    frames = decode(candidate(), tmp_path, ROOMY)
    for condition in CONDITIONS:
        system, user = Prompts.read(system="Be brief.").chat(condition, candidate(), frames)
        assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
        assert [user] == Prompts.read().chat(condition, candidate(), frames)


def test_braces_of_the_question_are_no_placeholders(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", 12)
    text = "{future} {question} {} {x} {{y}} \\frac{1}{2}?"
    one = candidate(question=f"<image>{text}", image=[8])
    frames = decode(one, tmp_path, ROOMY)
    prompts = Prompts("{question}", "{question} after {future} {these}")
    assert shown(prompts.chat("base", one, frames)[0]["content"]) == [10, text]
    assert shown(prompts.chat("hint", one, frames)[0]["content"]) == [10, f"{text} after ", 6, 8, " {these}"]


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("base", "What happens?"),
        ("base", "{question} {question}"),
        ("base", "{question} {future}"),
        ("hint", "{future}"),
        ("hint", "{question}"),
        ("hint", "{question} {future} {future}"),
        ("hint", "{future} {question}"),
        ("hint", ""),
    ],
)
def test_a_template_with_other_placeholders_is_refused_by_its_file(condition: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.txt: .*must stand in it, once"):
        Prompts.read(**{condition: file})


def test_a_template_with_frames_of_its_own_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("<image> {question}")
    with pytest.raises(ValueError, match=r"mine\.txt: <image> must not stand in it"):
        Prompts.read(base=tmp_path / "mine.txt")


@settings(deadline=None)
@given(max_pixels=st.integers(16, 64 * 32))
def test_large_frames_shrink_to_the_limit_and_keep_their_form(
    max_pixels: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "wide"
    if not folder.exists():
        folder.mkdir()
        clip(folder / "clip.mp4", 12, width=64, height=32)
    frames = decode(candidate(), folder, max_pixels)
    sizes = {Image.open(io.BytesIO(png)).size for png in frames.observed + frames.future}
    assert len(sizes) == 1
    width, height = sizes.pop()
    assert width * height <= max_pixels < (width + 2) * (height + 2)
    assert 0 <= width - 2 * height <= 1  # both sides are rounded down


def test_shrunk_frames_show_the_same(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", 12, width=64, height=64)
    frames = decode(candidate(), tmp_path, 16 * 16)
    images = [Image.open(io.BytesIO(png)) for png in frames.observed + frames.future]
    assert [image.size for image in images] == [(16, 16)] * 5
    halves = [np.asarray(image, dtype=float)[:, [2, 13]].mean(axis=(0, 2)) for image in images]
    for half, number in zip(halves, [1, 2, 3, 6, 8], strict=True):
        assert half == pytest.approx([20 + STEP * digit for digit in divmod(number, 10)], abs=STEP / 4)


@pytest.mark.parametrize("max_pixels", [32 * 32, ROOMY])
def test_small_frames_are_left_as_they_are(max_pixels: int, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 10)
    found = decode(candidate(), tmp_path, max_pixels)
    written = read_frames(tmp_path / "clip.mp4", [1, 2, 3, 6, 8])
    for png, image in zip(found.observed + found.future, written, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(image))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reasoning_image": []}, "reasoning_image: names no future frames"),
        ({"video": "elsewhere.mp4"}, r"elsewhere\.mp4: no such file"),
        ({"video": "broken.mp4"}, r"broken\.mp4: cannot be decoded"),
        ({"image": [1, 2]}, "placeholders do not fit: 3 <image> .* 2 observed"),
        ({"question": "Which wall?"}, "placeholders do not fit: 0 <image> .* 3 observed"),
        ({"image": [1, 2, 9]}, r"frames go outside 1\.\.8: \[9\]"),
        ({"reasoning_image": [0]}, r"frames go outside 1\.\.8: \[0\]"),
    ],
)
def test_a_candidate_that_cannot_be_shown_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    clip(tmp_path / "clip.mp4", 12)
    (tmp_path / "broken.mp4").write_text("no video")
    with pytest.raises(RowError, match=reason):
        decode(candidate(**changes), tmp_path, ROOMY)


ARGUMENTS = st.tuples(st.integers(-(2**63), 2**63), st.text(), st.sampled_from(CONDITIONS))


@given(ARGUMENTS, st.integers(1, 100))
def test_seeds_are_consecutive_depend_on_the_arguments_alone_and_fit_a_server(
    arguments: tuple[int, str, str], rollouts: int
) -> None:
    found = seeds(*arguments, rollouts)
    assert found == list(range(found[0], found[0] + rollouts))
    assert found[0] >= 0
    assert found[-1] < 2**31 + rollouts
    assert found == seeds(*arguments, rollouts)
    assert found[:1] == seeds(*arguments, 1)  # further rollouts leave the first as they are


@given(ARGUMENTS, ARGUMENTS)
def test_another_seed_candidate_or_condition_has_other_seeds(one: tuple[int, str, str], other: tuple[int, str, str]) -> None:
    assume(one != other)
    assert not set(seeds(*one, 8)) & set(seeds(*other, 8))


@given(ARGUMENTS)
def test_conditions_and_neighbouring_seeds_share_nothing(arguments: tuple[int, str, str]) -> None:
    seed, name, _ = arguments
    base, hint, other = seeds(seed, name, "base", 8), seeds(seed, name, "hint", 8), seeds(seed + 1, name, "base", 8)
    assert len({*base, *hint, *other}) == 3 * 8


def test_seeds_of_no_condition_are_refused() -> None:
    with pytest.raises(ValueError, match="base, hint, not 'future'"):
        seeds(0, "q", "future", 8)
