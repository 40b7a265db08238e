"""The eight-frame pool that TwiFF's frame indices point into.

TwiFF examples name frames by 1-based indices into a pool of eight frames per video. The pool covers the video evenly
but leaves out its first and last frame.
"""

from collections.abc import Sequence
from itertools import pairwise

POOL = 8


def frame_pool(num_frames: int, pool: int = POOL) -> list[int]:
    """Returns the 0-based frame numbers of the pool, in order; short videos repeat their last pool frame.

    Entry 1 is frame 1 and the last entry frame ``num_frames - 2``. The entries between are the middles of the intervals
    between ``pool - 1`` equally spaced edges. Raises ValueError for fewer than 3 frames or a pool of fewer than 3.
    """
    if pool < 3:
        raise ValueError(f"a frame pool has at least 3 entries, not {pool}")
    if num_frames < 3:
        raise ValueError(f"a frame pool needs a video of at least 3 frames, not {num_frames}")
    first, last = 1, max(num_frames - 2, 2)
    intervals = min(pool - 2, last - first)
    # Integer arithmetic: truncating floating-point edges could fall one short of an exact integer.
    edges = [first + 1 + i * (last - first - 1) // intervals for i in range(intervals + 1)]
    middles = [(low + high - 1) // 2 for low, high in pairwise(edges)]
    chosen = [first, *middles, last]
    return chosen + [last] * (pool - len(chosen))


def frame_numbers(indices: Sequence[int], num_frames: int) -> list[int]:
    """Returns 0-based frame numbers of 1-based pool ``indices``, in that order. Raises ValueError on one outside 1..8."""
    pool = frame_pool(num_frames)
    outside = [index for index in indices if not 1 <= index <= POOL]
    if outside:
        raise ValueError(f"frame indices must lie in 1..{POOL}, not {outside}")
    return [pool[index - 1] for index in indices]
