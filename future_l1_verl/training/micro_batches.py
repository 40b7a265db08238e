"""Micro-batches by packed tokens, with the answers to a question together; importing this module makes verl use them.

Upstream (verl/workers/engine/utils.py, prepare_micro_batches) counts the tokens of each row and places rows one by one, so
that a prompt would be computed in every micro-batch with one of its answers.
"""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.utils import prepare_micro_batches as upstream

from future_l1_verl.training.balancing import within


def questions_of(batch: TensorDict) -> list[int]:
    """Returns the question of each row, numbered by first appearance: rows with one ``uid``, or each row if there is none."""
    if "uid" not in batch:
        return list(range(len(batch)))
    numbers: dict[str, int] = {}
    return [numbers.setdefault(str(uid), len(numbers)) for uid in list(batch["uid"])]


def on_host(ragged: Tensor) -> tuple[Tensor, ...]:
    """Returns the rows of a ragged tensor, on the host."""
    return ragged.values().cpu().split(ragged.offsets().diff().tolist())


def rows_of_prompts(batch: TensorDict) -> list[int]:
    """Returns the length of each row's prompt, from ``prompts`` or the first token in ``loss_mask`` (stage 1)."""
    if "prompts" in batch:
        return batch["prompts"].offsets().diff().tolist()
    return [int(row.nonzero()[0, 0]) if row.any() else len(row) for row in on_host(batch["loss_mask"])]


def prepare_micro_batches(data: TensorDict, dp_group: Any = None, **kwargs: Any) -> tuple[list[TensorDict], Any]:
    """Returns micro-batches, and the rows of each. All ranks of ``dp_group`` get the same number; micro-batches of a fixed
    number of rows are upstream's. Raises ValueError for a row that is longer than a micro-batch may be.
    """
    if not tu.get_non_tensor_data(data, "use_dynamic_bsz", True):
        return upstream(data=data, dp_group=dp_group, **kwargs)
    budget = data["max_token_len_per_gpu"] * tu.get_non_tensor_data(data, "sp_size", 1)
    prompts, lengths = rows_of_prompts(data), data["input_ids"].offsets().diff().tolist()
    answers = [length - prompt for length, prompt in zip(lengths, prompts, strict=True)]
    questions = questions_of(data)
    parts = within(budget, questions, prompts, answers)
    wanted = torch.tensor(len(parts), device=get_device_name())
    torch.distributed.all_reduce(wanted, op=torch.distributed.ReduceOp.MAX, group=dp_group)
    if int(wanted) > len(parts):
        parts = within(budget, questions, prompts, answers, at_least=int(wanted))
    return [tu.index_select_tensor_dict(data, rows) for rows in parts], parts


transformer_impl.prepare_micro_batches = prepare_micro_batches
