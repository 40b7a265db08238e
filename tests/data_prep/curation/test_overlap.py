import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.curation import candidates
from data_prep.curation.overlap import Benchmarks, Frames, Overlap, clip_hashes, frame_hash, normalised, video_id
from data_prep.curation.selection import SelectionError
from data_prep.toy.real_clips import source_path
from future_l1_verl.data.video import read_frames, write_video

SOURCES = ("bigbuckbunny", "bikes", "carphone_pristine")
# Ways to encode a clip again: of its size, constant rate factor.
ENCODINGS = {"quarter": (0.25, 35), "poor": (1.0, 40), "larger": (1.5, 28)}


@pytest.mark.parametrize(
    ("question", "same"),
    [
        ("<image><image>What happens next?", "what happens next"),
        ("  What\n happens\tNEXT ?!", "what happens next"),
        ("What happens next?\nA. It falls.\n(b) It stays\nC: It flies\n d) It rolls\nE.", "what happens next"),
        ("What happens next? A. It falls. B. It stays", "what happens next"),
        ("What happens next? (A) It falls (B) It stays", "what happens next"),
        ("Vitamin A. He picks B. then?", "vitamin a he picks b then"),
        ("A man walks: where to?", "a man walks where to"),
        ("A.\nWhere to?", "where to"),
        ("Where's the ball's shadow?", "wheres the balls shadow"),
        ("Where\u2019s the left/right ball_2?", "wheres the left right ball 2"),
        ("\uff37\uff28\uff21\uff34 \ufb01ts in the STRASSE?", "what fits in the strasse"),
        ("what fits in the Straße", "what fits in the strasse"),
        ("球会去哪里\uff1f", "球会去哪里"),
        ("<image>A. one\nB. two", ""),
    ],
)
def test_wordings_of_a_question(question, same):
    assert normalised(question) == same
    assert normalised(same) == same


@pytest.mark.parametrize(
    ("video", "pattern", "expected"),
    [
        ("a/b/clip.v2.mp4", r"(.*)", "clip.v2"),
        ("part-3/AbC_-123_000_010.mp4", r"^(.{8})_\d+_\d+$", "AbC_-123"),
        ("x/v_77-split2.webm", r"v_(\d+)", "77"),
    ],
)
def test_the_id_of_a_video(video, pattern, expected):
    assert video_id(video, re.compile(pattern)) == expected


@pytest.mark.parametrize("pattern", [r"v_(\d+)", r"clip(x)?"])
def test_a_file_name_without_an_id_is_refused(pattern):
    with pytest.raises(SelectionError, match="finds no id in 'clip'"):
        video_id("folder/clip.mp4", re.compile(pattern))


def item(name, video, question="Q?"):
    empty = {
        "source": "made",
        "answer": "x",
        "options": [],
        "image": [1],
        "reasoning_image": [],
        "response": "",
        "category": "",
    }
    return {"id": name, "video": video, "question": question} | empty


def test_items_of_benchmarks_are_found_by_video_then_by_question(tmp_path):
    file = tmp_path / "bench.parquet"
    candidates.write(file, [item("one", "a/v1.mp4", "Where to?"), item("two", "v2.mp4", "<image>"), item("3", "v1.mp4", "why")])
    benchmarks = Benchmarks(re.compile("(.*)"))
    benchmarks.add(file, tmp_path / "clips")
    both = ("video", "question")
    assert benchmarks.find("elsewhere/v1.mkv", "Why?", both) == Overlap("video", f"{file}: one")
    assert benchmarks.find("elsewhere/v1.mkv", "Why?", ("question",)) == Overlap("question", f"{file}: 3")
    assert benchmarks.find("v9.mp4", "where  TO", both) == Overlap("question", f"{file}: one")
    assert benchmarks.find("v9.mp4", "where  TO", ("video", "frames")) is None
    assert benchmarks.find("v9.mp4", "?!", both) is None  # empty as the second item's
    assert list(benchmarks.clips) == [tmp_path / "clips" / video for video in ("a/v1.mp4", "v2.mp4", "v1.mp4")]
    assert benchmarks.items == 3


def test_an_empty_benchmark_is_refused(tmp_path):
    candidates.write(tmp_path / "empty.parquet", [])
    with pytest.raises(SelectionError, match=r"empty.parquet: holds no candidates"):
        Benchmarks(re.compile("(.*)")).add(tmp_path / "empty.parquet", None)


def encode(path, frames, scale=1.0, crf=16):
    height, width = (int(side * scale) // 2 * 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            image = Image.fromarray(frame).resize((width, height))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two cuts of each of three videos, and those encoded again."""
    folder = tmp_path_factory.mktemp("real")
    for name in SOURCES:
        frames = np.stack([np.asarray(image) for image in read_frames(source_path(name), range(80))])
        for part, start in enumerate((0, 48)):
            cut = frames[start : start + 32]
            write_video(folder / f"{name}-{part}.mp4", cut, 10)
            for encoding, settings in ENCODINGS.items():
                encode(folder / f"{name}-{part}-{encoding}.mp4", cut, *settings)
    return folder


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_a_clip_encoded_again_is_found_and_another_is_not(real, pool):
    benchmark = {real / f"{name}-{part}.mp4": f"{name}-{part}" for name in SOURCES[:2] for part in (0, 1)}
    frames = Frames(benchmark, pool)
    clips = [f"{name}-{part}-{way}" for name, part, way in itertools.product(SOURCES, (0, 1), ENCODINGS)]
    found = frames.find([real / f"{clip}.mp4" for clip in clips])
    for clip, overlap in zip(clips, found, strict=True):
        source = clip.rsplit("-", 1)[0]
        assert overlap == (None if source.startswith(SOURCES[2]) else Overlap("frames", source)), clip


def flat(path, levels):
    frames = np.zeros((len(levels), 48, 64, 3), np.uint8) + np.array(levels, np.uint8)[:, None, None, None]
    write_video(path, frames, 10)


def noise(seed, count):
    """Blocks of random colours, another picture in each frame."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def test_shared_black_frames_are_no_overlap(tmp_path, pool):
    """Fades: half of either clip is black, the rest differs."""
    for name, seed in (("benchmark", 1), ("other", 2)):
        frames = noise(seed, 20)
        frames[10:] = 0
        write_video(tmp_path / f"{name}.mp4", frames, 10)
    frames = Frames({tmp_path / "benchmark.mp4": "item"}, pool)
    assert frames.find([tmp_path / "other.mp4", tmp_path / "benchmark.mp4"]) == [None, Overlap("frames", "item")]


def test_a_clip_without_content_cannot_be_compared_and_says_so(tmp_path, pool):
    flat(tmp_path / "black.mp4", [0] * 12)
    flat(tmp_path / "fade.mp4", range(0, 240, 20))
    write_video(tmp_path / "noise.mp4", noise(0, 12), 10)
    frames = Frames({tmp_path / "black.mp4": "black", tmp_path / "noise.mp4": "noise"}, pool)
    assert frames.flat == ["black"]
    assert [overlap.reason for overlap in frames.find([tmp_path / "fade.mp4", tmp_path / "black.mp4"])] == ["flat", "flat"]
    assert frames.find([tmp_path / "noise.mp4"]) == [Overlap("frames", "noise")]


def test_only_flat_frames_go_without_a_hash():
    assert frame_hash(Image.new("RGB", (64, 48), (90, 20, 7))) is None
    assert frame_hash(Image.fromarray(noise(0, 1)[0])) is not None


def test_a_clip_that_cannot_be_read_is_removed_with_the_reason(tmp_path, pool):
    write_video(tmp_path / "noise.mp4", noise(0, 12), 10)
    write_video(tmp_path / "two.mp4", noise(0, 2), 10)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    frames = Frames({tmp_path / "noise.mp4": "noise"}, pool)
    found = frames.find([tmp_path / name for name in ("broken.mp4", "absent.mp4", "two.mp4", "broken.mp4")])
    assert [overlap.reason for overlap in found] == ["unreadable"] * 4
    problems = ("cannot be decoded", "no such file", "at least 3 frames", "cannot be decoded")
    assert all(problem in overlap.by for problem, overlap in zip(problems, found, strict=True))


def test_a_benchmark_that_cannot_be_read_is_refused(tmp_path, pool):
    with pytest.raises(SelectionError, match=r"item: .*absent.mp4: no such file"):
        Frames({tmp_path / "absent.mp4": "item"}, pool)


@pytest.mark.parametrize("settings", [{"distance": -1}, {"distance": 64}, {"share": 0.0}, {"share": 1.1}])
def test_settings_out_of_range_are_refused(settings, pool):
    with pytest.raises(ValueError, match="hash distance lies in"):
        Frames({}, pool, **settings)


def made(benchmark, distance, share):
    """Frames of clips that are named by their number and have the given hashes."""

    class Made(Frames):
        def _hashes(self, paths, label):
            return [np.array(frames, dtype=np.uint64) for frames in benchmark]

    return Made({number: number for number in range(len(benchmark))}, None, distance, share)


hashes = st.integers(0, 7).flatmap(
    lambda base: st.integers(0, 2).map(lambda flips: base * 0x1111111111111111 ^ ((1 << flips) - 1))
)


@given(
    st.lists(st.lists(hashes, max_size=4), max_size=4),
    st.lists(hashes, min_size=2, max_size=8),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_matching_agrees_with_a_count_by_hand(benchmark, clip, distance, share):
    matching = [sum(any((mine ^ other).bit_count() <= distance for other in frames) for mine in clip) for frames in benchmark]
    enough = [count >= 2 and count >= share * len(clip) for count in matching]
    expected = matching.index(max(matching)) if any(enough) else None
    assert made(benchmark, distance, share).match(np.array(clip, np.uint64)) == expected


@pytest.mark.parametrize(("matching", "share", "overlaps"), [(2, 0.5, False), (3, 0.5, True), (1, 0.1, False), (2, 0.1, True)])
def test_the_share_of_five_frames_that_must_match(matching, share, overlaps):
    different = [0x1111111111111111, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444, 0x5555555555555555]
    found = made([different[:matching]], 0, share).match(np.array(different, np.uint64))
    assert found == (0 if overlaps else None)


def test_hashes_of_a_clip_are_those_of_its_pool(tmp_path):
    """Of 12 frames the pool is 1, six middles and 10; here only those with content count."""
    frames = noise(4, 12)
    frames[10] = 128
    write_video(tmp_path / "clip.mp4", frames, 10)
    whole = clip_hashes(tmp_path / "clip.mp4")
    shown = read_frames(tmp_path / "clip.mp4", [1, *range(2, 10)])
    assert len(whole) == 7
    assert whole[0] == frame_hash(shown[0])
    assert set(whole.tolist()) <= {frame_hash(image) for image in shown}
