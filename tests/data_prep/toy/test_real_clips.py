import av
import numpy as np
import pandas as pd
import pytest

from data_prep.toy.real_clips import CLIPS_PER_SOURCE, SOURCES, measure, source_path, write_set
from data_prep.toy.synthetic.writing import Settings
from data_prep.toy.synthetic.writing import write_set as write_synthetic
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import count_frames, read_frames


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("real")
    write_set(out)
    return out


def flat(levels):
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), 4, 4, 3))


def test_measured_change_is_that_of_the_levels():
    # Shown: levels 10, 12, 14 (mean 12, steps of 2). Then 20, 26 (mean 23, steps of 6): 11 lighter, motion up by 2.
    change = measure(flat([10, 12, 14, 20, 26]), last_shown=2)
    assert (change.light, change.motion) == pytest.approx((11, 2))
    assert change.option == "brighter, more motion"
    assert change.doubtful is None


@pytest.mark.parametrize(
    ("levels", "reason"),
    [([10, 12, 10, 12, 10], "brightness"), ([10, 12, 14, 16, 18], "motion")],  # means 10.67, 11; steps all 2
)
def test_small_changes_are_not_asked_about(levels, reason):
    assert measure(flat(levels), last_shown=2).doubtful.startswith(reason)


def test_columns_are_those_of_the_synthetic_set(made, tmp_path):
    write_synthetic(tmp_path, Settings(train_questions=2, val_questions=2, test_questions=2), lambda items, label: items)
    for part in SOURCES:
        real, synthetic = (pd.read_parquet(d / f"{part}.parquet") for d in (made, tmp_path))
        assert list(real.columns) == list(synthetic.columns)
        assert 4 <= len(real) <= CLIPS_PER_SOURCE * len(SOURCES[part])


def test_clips_keep_size_and_rate_and_have_the_frames_named(made):
    for part in SOURCES:
        for row in pd.read_parquet(made / f"{part}.parquet").to_dict("records"):
            source = row["video"].removeprefix("clips/").rsplit("-", 1)[0]
            with av.open(str(source_path(source))) as whole, av.open(str(made / row["video"])) as clip:
                a, b = whole.streams.video[0], clip.streams.video[0]
                assert (a.width, a.height, a.average_rate) == (b.width, b.height, b.average_rate)
            entries = [*row["image"], *row["reasoning_image"]]
            numbers = frame_numbers(entries, count_frames(made / row["video"]))
            assert len(read_frames(made / row["video"], numbers)) == 5


def test_train_and_test_come_from_different_videos(made):
    videos = [set(pd.read_parquet(made / f"{part}.parquet")["video"].str.replace(r"-\d+", "", regex=True)) for part in SOURCES]
    assert not videos[0] & videos[1]


def test_missing_source_is_named():
    with pytest.raises(FileNotFoundError, match="absent"):
        source_path("absent")
