"""The double of a CUDA device notices what it is for, and gives the values of the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fake_cuda import FakeCuda, fake_cuda
from torch import Tensor

WAITS: dict[str, Callable[[Tensor], object]] = {
    "a value": lambda x: x.sum().item(),
    "a truth": lambda x: bool((x > 1).any()),
    "all values": lambda x: x.tolist(),
    "a copy to the host": lambda x: x.cpu(),
    "a copy from the host": lambda x: torch.ones(3).to(x.device),
    "a list as an index": lambda x: torch.tensor([1], device=x.device),
    "a mask as an index": lambda x: x[x > 1],
    "values at a mask": lambda x: x.index_put_((x > 1,), torch.zeros(2, device=x.device)),
    "indices of a mask": lambda x: (x > 1).nonzero(),
    "equality": lambda x: torch.equal(x, x),
}
GOES_ON: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: x + 1,
    "a copy that is queued": lambda x: x.to("cpu", non_blocking=True),
    "indices that are queued": lambda x: x.index_select(0, torch.tensor([1]).to(x.device, non_blocking=True)),
    "one value at a mask": lambda x: x.__setitem__(x > 1, 0.0),
    "a column": lambda x: x[None][:, 1].fill_(0.0),
    "zeros": lambda x: torch.zeros(3, device=x.device) + x.new_zeros(3),
}


@pytest.mark.parametrize(("name", "waits"), [*((name, True) for name in WAITS), *((name, False) for name in GOES_ON)])
def test_it_knows_what_the_host_waits_for(name: str, waits: bool) -> None:
    with fake_cuda() as device:
        x = FakeCuda(torch.tensor([1.0, 2.0, 3.0]))
        (WAITS | GOES_ON)[name](x)
    assert bool(device.waits) is waits


def test_devices_do_not_mix() -> None:
    with fake_cuda():
        x = torch.arange(3, device="cuda")
        with pytest.raises(RuntimeError, match="mixes cuda:0 and cpu"):
            x + torch.arange(3)
        with pytest.raises(RuntimeError, match="mixes cuda:0 and cpu"):
            x[torch.tensor([0])]
        assert (x + torch.tensor(1)).tolist() == [1, 2, 3], "a single number may come from the host"
        assert (x ^ 1).tolist() == [1, 0, 3] and x.add_(1).tolist() == [1, 2, 3]
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


def test_gradients_are_there_and_are_those_of_the_cpu() -> None:
    values = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = values.clone().requires_grad_()
    torch.nn.functional.scaled_dot_product_attention(*[expected] * 3, is_causal=True).square().sum().backward()
    with fake_cuda():
        x = FakeCuda(values).requires_grad_()
        torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).square().sum().backward()
        assert x.grad.device.type == "cuda"
    assert torch.equal(x.grad.held, expected.grad)
