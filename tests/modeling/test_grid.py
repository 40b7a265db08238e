import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.modeling.grid import latent_grid

SIZES = {"16:9": (1280, 720), "4:3": (640, 480), "1:1": (64, 64), "9:16": (720, 1280)}
# Distances in ln: 16:9 is 0.575, 4:3 is 0.288, 1:1 is 0, 9:16 is -0.575; grids of n differ by the factors of n.
TABLE = {
    "16:9": {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 6: (2, 3), 7: (1, 7)},
    "4:3": {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 6: (2, 3), 7: (1, 7)},
    "1:1": {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 6: (2, 3), 7: (1, 7)},
    "9:16": {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (4, 2), 16: (4, 4), 32: (8, 4), 64: (8, 8), 6: (3, 2), 7: (7, 1)},
}


@pytest.mark.parametrize(("aspect", "count", "grid"), [(a, n, g) for a, row in TABLE.items() for n, g in row.items()])
def test_table(aspect, count, grid):
    """docs/differences.md, row 26."""
    assert latent_grid(*SIZES[aspect], count) == grid


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 64))
def test_no_other_grid_is_nearer(width, height, count):
    rows, columns = latent_grid(width, height, count)
    assert rows * columns == count

    def distance(r, c):
        return abs(math.log(c / r) - math.log(width / height))

    others = [(r, c) for r in range(1, count + 1) for c in range(1, count + 1) if r * c == count]
    assert distance(rows, columns) <= min(distance(r, c) for r, c in others) + 1e-12


def test_of_two_equally_near_grids_the_wider_is_taken():
    assert latent_grid(100, 100, 8) == (2, 4)
    # 1:2 lies midway between 1:1 and 1:4 for four latents.
    assert latent_grid(100, 200, 4) == (2, 2)


@pytest.mark.parametrize("values", [(0, 10, 4), (10, 0, 4), (10, 10, 0)])
def test_nothing_to_lay_out_is_refused(values):
    with pytest.raises(ValueError, match="cannot hold a grid"):
        latent_grid(*values)
