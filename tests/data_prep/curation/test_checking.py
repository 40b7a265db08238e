"""Clips of every kind, good and bad, looked at as closely as asked for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep.curation import checking
from data_prep.curation.checking import CLIPS_AT_ONCE, Checked, check
from future_l1_verl.data.video import write_video

GOOD = {"three.mp4": 3, "four.mp4": 4, "nine.mp4": 9}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good clips, and one for each thing that can be wrong."""
    folder = tmp_path_factory.mktemp("videos")
    for name, frames in {**GOOD, "short.mp4": 2, "whole.mp4": 30}.items():
        noise = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)
        write_video(folder / name, noise, 4)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    (folder / "folder.mp4").mkdir()
    (folder / "cut.mp4").write_bytes((folder / "whole.mp4").read_bytes()[:300])
    # A header whose frames are noise: the container opens, and nothing in it decodes.
    content = bytearray((folder / "whole.mp4").read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov")
    content[start : end - 4] = np.random.default_rng(1).bytes(end - 4 - start)
    (folder / "noise.mp4").write_bytes(content)
    return folder


NOTHING = "video does not decode: "
BAD = {
    "none": {"gone.mp4": "video is missing: gone.mp4", "empty.mp4": "video is empty: empty.mp4", "folder.mp4": "video is miss"},
    "first": {"text.mp4": NOTHING, "cut.mp4": NOTHING, "noise.mp4": NOTHING},
    "all": {"short.mp4": "video is too short: short.mp4: a frame pool needs a video of at least 3 frames, not 2"},
}


def look(videos: Path, clips: list[str], decode: str, most_bad: int = 99, workers: int = 2) -> Checked:
    return check(iter(clips), len(clips), videos, decode, workers, most_bad)


@pytest.mark.parametrize("decode", checking.DECODE)
def test_bad_clips_are_found_from_the_depth_on_that_shows_them(decode: str, videos: Path) -> None:
    deep = list(BAD)
    seen = {clip: reason for depth in deep[: deep.index(decode) + 1] for clip, reason in BAD[depth].items()}
    every = [clip for found in BAD.values() for clip in found]
    checked = look(videos, [*every, *GOOD], decode)
    assert checked.clips == len(every) + len(GOOD)
    assert {clip: reason[: len(seen[clip])] for clip, reason in checked.bad.items()} == seen
    if decode == "all":
        assert checked.frames == Counter(GOOD.values())
    else:
        assert not checked.frames


def test_workers_change_nothing(videos: Path) -> None:
    clips = [*GOOD, "short.mp4", "gone.mp4"]
    assert look(videos, clips, "all", workers=1) == look(videos, clips, "all", workers=3)


def test_too_many_bad_ones_end_it_before_the_last_clip(videos: Path) -> None:
    taken = []

    def clips() -> object:
        for number in range(10 * CLIPS_AT_ONCE):
            taken.append(number)
            yield f"{number}.mp4"

    checked = check(clips(), 10 * CLIPS_AT_ONCE, videos, "none", 2, most_bad=5)
    assert len(checked.bad) == checked.clips == len(taken) == CLIPS_AT_ONCE


def test_another_depth_is_refused(videos: Path) -> None:
    with pytest.raises(ValueError, match="decode is one of none, first, all, not 'half'"):
        look(videos, [], "half")
