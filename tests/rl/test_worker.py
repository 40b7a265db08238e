"""What the actor keeps on the host between updates."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from verl.plugin.platform import get_platform
from verl.utils.fsdp_utils import fsdp2_sharded_load_from_cpu, fsdp2_sharded_save_to_cpu

from future_l1_verl.rl.worker import SeparateWorker


@pytest.fixture
def module(tmp_path) -> torch.nn.Module:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield fully_shard(torch.nn.Linear(2, 2), mesh=init_device_mesh("cpu", (1,)))
    torch.distributed.destroy_process_group()


@torch.no_grad()
def kept_after_an_update(copy, module: torch.nn.Module) -> bool:
    """Whether what ``copy`` kept brings back the weights that an update has changed."""
    before = module.weight.full_tensor().clone()
    kept = copy(module)
    module.weight.mul_(2)
    fsdp2_sharded_load_from_cpu(module, *kept)
    return torch.equal(module.weight.full_tensor(), before)


def test_kept_weights_do_not_change_with_the_actor(module: torch.nn.Module) -> None:
    worker = object.__new__(SeparateWorker)
    worker._strategy_handlers = (fsdp2_sharded_save_to_cpu, fsdp2_sharded_load_from_cpu)
    assert kept_after_an_update(worker.copy_handler, module)
    assert not kept_after_an_update(fsdp2_sharded_save_to_cpu, module)  # the control: verl's alone


def test_copies_to_the_host_have_ended_before_they_are_kept(module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of a device whose copy to the host arrives when it is waited for."""
    arrived = torch.arange(4.0).reshape(2, 2)
    monkeypatch.setattr(get_platform(), "synchronize", lambda: module.weight.to_local().data.copy_(arrived), raising=False)
    worker = object.__new__(SeparateWorker)
    worker._strategy_handlers = (fsdp2_sharded_save_to_cpu, fsdp2_sharded_load_from_cpu)
    kept, _ = worker.copy_handler(module)
    assert torch.equal(kept["weight"][0], arrived)
