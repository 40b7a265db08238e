import struct

import av
import numpy as np
import pytest
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

from future_l1_verl.data.video import Probe, VideoError, count_frames, probe, read_frames, write_video

NUM_FRAMES = 20
USES = [count_frames, lambda path: read_frames(path, [0]), probe]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip whose frame f is grey of level 10 f."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    levels = 10 * np.arange(NUM_FRAMES, dtype=np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (NUM_FRAMES, 32, 48, 3)), fps=24)
    return path


def test_frames_are_the_numbers_asked_for_in_that_order(clip):
    images = read_frames(clip, [7, 0, 19, 7])
    assert [image.size for image in images] == [(48, 32)] * 4
    # Neighbouring frames differ by ten levels, so an error of half that tells them apart.
    for image, number in zip(images, [7, 0, 19, 7], strict=True):
        assert abs(np.asarray(image, float).mean() - 10 * number) < 5


def test_no_frames_asked_for_gives_none(clip):
    assert read_frames(clip, []) == []


def test_count_frames(clip):
    assert count_frames(clip) == NUM_FRAMES


def test_too_few_frames_names_file_and_both_numbers(clip):
    with pytest.raises(VideoError, match=r"grey\.mp4: has 20 frames, frame number 20"):
        read_frames(clip, [3, 20])


def test_negative_number_is_refused(clip):
    with pytest.raises(ValueError, match="-1"):
        read_frames(clip, [-1])


@pytest.mark.parametrize("use", USES)
def test_missing_file(tmp_path, use):
    with pytest.raises(VideoError, match=r"absent\.mp4: no such file"):
        use(tmp_path / "absent.mp4")


@pytest.mark.parametrize("use", USES)
def test_file_that_is_no_video(tmp_path, use):
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError, match=r"text\.mp4: cannot be decoded"):
        use(path)


def test_file_cut_short_gives_no_wrong_frames(clip, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:600])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        read_frames(path, [NUM_FRAMES - 1])


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="33x32"):
        write_video(tmp_path / "odd.mp4", np.zeros((2, 32, 33, 3), np.uint8), fps=24)


def quarters(path, turn=None, matrix=None, size=(64, 32), container=None):
    """Three equal frames whose quarters have four colours, to be shown turned (degrees, counter-clockwise) or by a matrix."""
    width, height = size
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2], frame[: height // 2, width // 2 :] = (250, 0, 0), (0, 250, 0)
    frame[height // 2 :, : width // 2], frame[height // 2 :, width // 2 :] = (0, 0, 250), (250, 250, 0)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("libx264", rate=8, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if turn is not None:
            stream.set_display_rotation(turn)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def served(path):
    """First frame as the served engine reads it: uint8 ``[height, width, 3]``."""
    return VIDEO_LOADER_REGISTRY.load("opencv").load_bytes(path.read_bytes(), num_frames=-1)[0][0]


MIRRORED = {
    "left to right": (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30),
    "upside down": (65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
}


@pytest.mark.parametrize("size", [(64, 32), (32, 48)])
@pytest.mark.parametrize("turn", [None, 0, 90, 180, 270, -90, 45])
def test_frames_are_turned_as_the_served_engine_turns_them(tmp_path, turn, size):
    path = quarters(tmp_path / "a.mp4", turn, size=size)
    (image,) = read_frames(path, [1])
    sideways = turn in (90, 270, -90)
    assert image.size == (size[::-1] if sideways else size)
    assert probe(path) == Probe(3, *image.size, timed=True)
    # Two decoders may round a colour differently, by less than a tenth of what parts two quarters.
    engine = served(path)
    assert engine.shape == (image.height, image.width, 3)
    assert np.abs(np.asarray(image, int) - engine).max() < 25
    # Control: turned back, the quarters are elsewhere.
    if turn in (90, 180, 270, -90):
        lying = np.rot90(np.asarray(image, int), -turn // 90)
        assert lying.shape != engine.shape or np.abs(lying - engine).max() > 200


@pytest.mark.parametrize("how", MIRRORED)
def test_mirrored_frames_are_shown_as_the_served_engine_shows_them(tmp_path, how):
    path = quarters(tmp_path / "a.mp4", matrix=MIRRORED[how])
    assert np.abs(np.asarray(read_frames(path, [0])[0], int) - served(path)).max() < 25


@pytest.mark.parametrize("name", ["ID-0:04:09.165-0:04:57.213.mp4", "http:clip.mp4", "concat:a|b.mp4", "-i.mp4", "图 %d#?.mp4"])
def test_a_relative_name_is_a_file_whatever_it_looks_like(tmp_path, monkeypatch, name):
    quarters(tmp_path / "a.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert count_frames(name) == probe(name).frames == len(read_frames(name, [0, 1, 2])) == 3


def test_probe_of_a_clip(clip):
    assert probe(clip) == Probe(NUM_FRAMES, 48, 32, timed=True)


def test_probe_tells_a_stream_without_timestamps(tmp_path):
    assert probe(quarters(tmp_path / "a.h264", container="h264")) == Probe(3, 64, 32, timed=False)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts"])
def test_probe_counts_the_frames_of_other_containers(tmp_path, suffix):
    path = quarters(tmp_path / f"a.{suffix}")
    assert probe(path) == Probe(count_frames(path), 64, 32, timed=True)


def test_frames_before_the_start_of_the_show_do_not_count(clip, tmp_path):
    """Clips cut without encoding begin at a key frame, with an edit list that hides what is before the cut."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"elst") + 16
    (start,) = struct.unpack_from(">i", data, at)
    struct.pack_into(">i", data, at, start + 5 * 512)  # 512 ticks a frame: 24 a second of 12,288
    (tmp_path / "cut.mp4").write_bytes(data)
    assert probe(tmp_path / "cut.mp4").frames == count_frames(tmp_path / "cut.mp4") == NUM_FRAMES - 5


def test_a_file_of_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    with pytest.raises(VideoError, match="no video stream"):
        probe(tmp_path / "a.wav")


@pytest.mark.parametrize("use", USES)
def test_a_codec_that_is_not_known_is_refused(clip, tmp_path, use):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be decoded"):
        use(tmp_path / "a.mp4")


def test_titles_in_another_encoding_do_not_matter(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as file:
        file.metadata["title"] = "TITLE HERE"
        stream = file.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    data = (tmp_path / "a.avi").read_bytes()
    assert b"TITLE HERE" in data
    (tmp_path / "a.avi").write_bytes(data.replace(b"TITLE HERE", "TITRE ÉTÉ".encode("latin-1") + b" "))
    assert count_frames(tmp_path / "a.avi") == 1
