"""Corrects verl's M-RoPE positions for batches whose sequences all have the same length.

Upstream (verl/utils/tensordict_utils.py) assumes that positions ``[4, T_i]`` arrive ragged along T. If all T_i are equal,
TransferQueue delivers them ragged along the 4, and upstream's correction of the axis then misreads them: the update
crashes, and the log-prob passes silently use wrong positions.
"""

import verl.workers.engine.base
import verl.workers.engine_workers
from tensordict import TensorDict
from verl.utils import tensordict_utils


def fix_position_ids(data: TensorDict) -> None:
    """Makes 3-D ``position_ids`` of a batch ragged along their last axis, in place."""
    positions = data.get("position_ids", None)
    if positions is None or positions.dim() != 3:
        return
    if not positions.is_nested:
        rows = positions.unbind(0)
    else:
        values, batch = positions.values(), len(positions.offsets()) - 1
        if values.shape[0] != int(positions.offsets()[-1]) or values.shape[0] != 4 * batch:
            positions._ragged_idx = 2
            return
        rows = values.view(batch, 4, -1).unbind(0)
    data["position_ids"] = tensordict_utils.nested_tensor_from_tensor_list(list(rows), ragged_idx=2)


for module in (tensordict_utils, verl.workers.engine.base, verl.workers.engine_workers):
    module.maybe_fix_3d_position_ids = fix_position_ids
