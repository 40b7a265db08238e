"""An update of the actor on a CUDA device that is none: no operation mixes devices, and the host waits where it is known to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from actor_harness import config
from fake_cuda import fake_cuda, move, on_device
from tensordict import TensorDict
from test_gradient import FAMILIES, batch, engine_of, outputs
from torch import Tensor
from verl.utils import tensordict_utils as tu

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rl.trainer import loss_function
from future_l1_verl.toy import tiny
from future_l1_verl.training.engine import LatentEngine

# What a micro-batch holds is looked at before its forward pass, and never after: a list of such looks, by function.
LOOKS = {
    "future_l1_verl/training/engine.py:prepare_model_inputs": 2,
    "future_l1_verl/training/engine.py:_rows_of_slots": 2,
    "future_l1_verl/training/micro_batches.py:on_host": 2,
    "future_l1_verl/training/micro_batches.py:rows_of_prompts": 1,
    "future_l1_verl/modeling/latent_vl.py:forward": 1,
    "future_l1_verl/modeling/latent_vl.py:_encode_vision": 1,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.build(out, seed=1)
    return out


def update(checkpoint: Path, rows: slice, place: Callable[[LatentEngine, TensorDict], None]) -> tuple[LatentEngine, float]:
    """An update with some of the rows, after ``place`` has put module and batch where they belong. Returns the loss as well."""
    engine = engine_of(checkpoint, FAMILIES["vmf"])
    data = batch(checkpoint, engine)
    chosen = list(range(len(data)))[rows]
    data = tu.index_select_tensor_dict(data, chosen)
    loss = loss_function(config(checkpoint, "latent_loss.kl_coef=0.5"), LatentSettings.from_checkpoint(checkpoint))
    place(engine, data)
    value, _ = loss(model_output=outputs(engine, data), data=data)
    value.backward()
    parameters = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=True)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return engine, value


def to_fake(engine: LatentEngine, data: TensorDict) -> None:
    move(engine.module)
    for name, value in data.items():
        if isinstance(value, Tensor):
            data[name] = on_device(value)


def ours(waits: list[str]) -> dict[str, int]:
    return {name: count for name, count in Counter(waits).items() if name.startswith("future_l1_verl/")}


def test_an_update_mixes_no_devices_and_looks_before_the_pass_alone(checkpoint: Path) -> None:
    plain, expected = update(checkpoint, slice(8), lambda engine, data: None)
    found = {}
    for rows in (4, 8):
        with fake_cuda() as device:
            engine, value = update(checkpoint, slice(rows), to_fake)
        found[rows] = ours(device.waits)
    assert torch.equal(value.held, expected)
    for (name, mine), (_, its) in zip(engine.module.named_parameters(), plain.module.named_parameters(), strict=True):
        assert torch.equal(mine.held, its), name
    in_loss = {name for name in found[8] if "rl/loss.py" in name}
    assert in_loss <= {"future_l1_verl/rl/loss.py:la_dapo_loss"}, "which makes padded tensors of ragged ones"
    assert {name: found[8][name] for name in found[8].keys() - in_loss} == LOOKS
    assert found[4] == found[8], "no look more for a row more"


def test_text_alone_is_scored_where_weights_rest_on_the_host(checkpoint: Path) -> None:
    """As in a reference with CPU offload: the tower is called for nothing, with zeros where embeddings come from."""
    engine = engine_of(checkpoint, FAMILIES["vmf"])
    data = batch(checkpoint, engine, shown=("text", "text"))
    embed = engine.module.get_input_embeddings()
    with torch.no_grad(), fake_cuda():
        to_fake(engine, data)
        gathered, embed.weight = embed.weight, torch.nn.Parameter(embed.weight.held)
        embed.forward = lambda ids: torch.nn.functional.embedding(ids, gathered)
        found = outputs(engine, data)["log_probs"].values().held
    assert found.isfinite().all() and found.any()
