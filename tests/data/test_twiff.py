from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.data.twiff import POOL, frame_numbers, frame_pool

GOLDEN = {
    5: [1, 1, 2, 3, 3, 3, 3, 3],
    8: [1, 1, 2, 3, 4, 5, 6, 6],
    9: [1, 1, 2, 3, 4, 5, 6, 7],
    12: [1, 2, 3, 4, 6, 7, 8, 10],
    100: [1, 9, 25, 41, 57, 73, 89, 98],
    240: [1, 21, 60, 99, 139, 178, 217, 238],
}


@pytest.mark.parametrize("num_frames", GOLDEN)
def test_pool_is_that_of_the_published_data(num_frames):
    """docs/differences.md, row 25."""
    assert frame_pool(num_frames) == GOLDEN[num_frames]


def test_pool_of_three_frames_ends_with_the_last():
    # Second and last but one are the same frame, so that the last stands for the latter, as in TwiFF's own code.
    # The one interval has both edges at 2 and its middle at 1.
    assert frame_pool(3) == [1, 1, 2, 2, 2, 2, 2, 2]


@given(st.integers(3, 100_000))
def test_pool_is_ordered_and_inside_the_video(num_frames):
    pool = frame_pool(num_frames)
    assert len(pool) == POOL
    assert pool == sorted(pool)
    assert pool[0] >= 0
    assert pool[-1] <= num_frames - 1


@given(st.integers(9, 100_000))
def test_middles_of_long_videos_are_evenly_spaced(num_frames):
    gaps = [later - sooner for sooner, later in pairwise(frame_pool(num_frames)[1:7])]
    # Rounding two edges and a middle moves a gap by at most one frame each way.
    assert max(gaps) - min(gaps) <= 2


@pytest.mark.parametrize(("num_frames", "pool"), [(2, 8), (0, 8), (-1, 8), (10, 2)])
def test_pool_refuses_what_has_no_pool(num_frames, pool):
    with pytest.raises(ValueError, match=str(num_frames if pool == 8 else pool)):
        frame_pool(num_frames, pool)


def test_frame_numbers_keeps_the_order_asked_for():
    assert frame_numbers([8, 1, 4, 4], 100) == [98, 1, 41, 41]


@pytest.mark.parametrize("index", [0, 9, -1])
def test_frame_numbers_refuses_indices_outside_the_pool(index):
    with pytest.raises(ValueError, match=str(index)):
        frame_numbers([1, index], 100)
