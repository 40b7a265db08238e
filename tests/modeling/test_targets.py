"""Latents out of the features of future frames."""

import torch

from future_l1_verl.modeling.targets import Targets


def test_features_are_pooled_over_a_grid_in_two_dimensions() -> None:
    """docs/differences.md, row 27: pooling the raster in one dimension would mix the left and the right of a row."""
    # Two by four cells, one number each: the columns 0 1 2 3 and, a row below, 10 more. In patches twice that, merged 2 x 2.
    frame = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0], [11.0], [12.0], [13.0]])
    latents = Targets(max_latents=2, pool=True)(frame, torch.tensor([[1, 4, 8]]), merge_size=2)
    # A wide picture is one row of two columns: the left half's mean and the right half's.
    assert latents.tolist() == [[(0 + 1 + 10 + 11) / 4], [(2 + 3 + 12 + 13) / 4]]


def test_frames_of_different_sizes_are_pooled_each_by_itself() -> None:
    wide, tall = torch.arange(8.0)[:, None], torch.arange(8.0)[:, None] + 100
    grids = torch.tensor([[1, 4, 8], [1, 8, 4]])
    both = Targets(max_latents=2, pool=True)(torch.cat([wide, tall]), grids, merge_size=2)
    alone = [Targets(2, pool=True)(frame, grid[None], 2) for frame, grid in zip((wide, tall), grids, strict=True)]
    assert torch.equal(both, torch.cat(alone))
    # The tall one is two rows of one column: 0..3 above 4..7.
    assert both[2:].flatten().tolist() == [101.5, 105.5]


def test_unit_targets_have_a_root_mean_square_of_one_and_the_same_direction() -> None:
    features = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 0.06
    latents = Targets(3, unit=True)(features, None, 2)
    torch.testing.assert_close(latents.square().mean(-1), torch.ones(3))
    torch.testing.assert_close(torch.cosine_similarity(latents, features), torch.ones(3))


def test_targets_have_no_gradient() -> None:
    """Row 28."""
    features = torch.randn(4, 8, requires_grad=True)
    assert not Targets(4, unit=True)(features, None, 2).requires_grad
