"""The batch that breaks upstream: every sequence has the same length."""

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils

from future_l1_verl.rl.position_ids import fix_position_ids


def positions(lengths: list[int]) -> list[torch.Tensor]:
    return [torch.arange(4 * length).view(4, length) + 1000 * i for i, length in enumerate(lengths)]


def as_transferred(rows: list[torch.Tensor]) -> TensorDict:
    """As TransferQueue hands rows over (simple_storage_manager.py:574): jagged along their first axis if it can."""
    if len({row.shape for row in rows}) == 1:
        values = torch.cat(rows)
        nested = torch.nested.nested_tensor_from_jagged(values, torch.arange(len(rows) + 1) * 4)
    else:
        nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return TensorDict({"position_ids": nested}, batch_size=[len(rows)])


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 7], [4]])
def test_rows_come_out_as_they_went_in(lengths: list[int]) -> None:
    rows = positions(lengths)
    data = as_transferred(rows)
    fix_position_ids(data)
    assert [row.tolist() for row in data["position_ids"].unbind()] == [row.tolist() for row in rows]


def test_dense_positions_become_ragged_along_the_sequence() -> None:
    rows = positions([5, 5])
    data = TensorDict({"position_ids": torch.stack(rows)}, batch_size=[2])
    fix_position_ids(data)
    assert data["position_ids"]._ragged_idx == 2
    assert [row.tolist() for row in data["position_ids"].unbind()] == [row.tolist() for row in rows]


def test_verl_uses_it_in_every_place() -> None:
    import verl.workers.engine.base
    import verl.workers.engine_workers

    for module in (tensordict_utils, verl.workers.engine.base, verl.workers.engine_workers):
        assert module.maybe_fix_3d_position_ids is fix_position_ids
