import numpy as np
import pytest

from future_l1_verl.data.video import VideoError, count_frames, read_frames, write_video

NUM_FRAMES = 20


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


@pytest.mark.parametrize("use", [count_frames, lambda path: read_frames(path, [0])])
def test_missing_file(tmp_path, use):
    with pytest.raises(VideoError, match=r"absent\.mp4: no such file"):
        use(tmp_path / "absent.mp4")


@pytest.mark.parametrize("use", [count_frames, lambda path: read_frames(path, [0])])
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
