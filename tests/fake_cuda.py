"""A CUDA device that is none: tensors that say "cuda:0" and hold their values in a tensor of the CPU.

Operations run on the CPU and give its values. One that mixes devices fails, as on a GPU; one that makes the host wait for the
device is recorded, with the function that asked for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nested._internal.nested_tensor import NestedTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("cuda:0")
OWNERS = ("future_l1_verl", "verl", "transformers", "vllm")  # packages in which a wait may arise
aten = torch.ops.aten
# What asks for a value, or for a number of values, that only the device knows.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
BORN_IN_BACKWARD = ("aten::zeros", "aten::new_zeros", "aten::new_empty_strided")


class FakeCuda(Tensor):
    """Wraps ``held``, a tensor of the CPU. What is below Python in torch, autograd too, takes it for one of the CPU itself."""

    held: Tensor
    said = DEVICE

    @staticmethod
    def __new__(cls, held: Tensor) -> FakeCuda:
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held: Tensor) -> None:
        self.held = held

    device = property(lambda self: self.said)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"FakeCuda({self.held})"

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or device.type == "cuda":
            return self if dtype in (None, self.dtype) else aten._to_copy(self, dtype=dtype)
        return aten._to_copy(self, dtype=dtype or self.dtype, device=device, non_blocking=non_blocking)

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self) -> FakeCuda:
        return self

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(each, NestedTensor) for each in types):
            return NotImplemented
        raise RuntimeError(f"{function}: a tensor of fake_cuda() was used after it")


class Device(TorchDispatchMode):
    """The device while `fake_cuda` is active. ``waits`` are the functions in which the host had to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = list(tree_iter((args, kwargs)))
        if any(isinstance(leaf, NestedTensor) for leaf in leaves):
            return NotImplemented  # comes again with the tensors that it is made of
        here = any(isinstance(leaf, FakeCuda) for leaf in leaves)
        elsewhere = any(isinstance(leaf, Tensor) and not isinstance(leaf, FakeCuda) and leaf.dim() > 0 for leaf in leaves)
        named = [torch.device(leaf) for leaf in leaves if isinstance(leaf, torch.device)]
        result_here = any(device.type == "cuda" for device in named) if named else here
        if function is aten.copy_.default:
            result_here = isinstance(args[0], FakeCuda)
            copied = (isinstance(args[1], FakeCuda) is not result_here) and not (len(args) > 2 and args[2])
        else:
            copied = function is aten._to_copy.default and here is not result_here and not kwargs.get("non_blocking")
            if here and elsewhere:
                raise RuntimeError(f"{function} mixes {DEVICE} and cpu")
        if torch._C._current_graph_task_id() != -1 and function._schema.name in BORN_IN_BACKWARD:
            result_here = True  # autograd names the device that it believes in
        if copied or (here and (function in WAITING or _counts(function, args))):
            self.waits.append(_asking())
        found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if here and isinstance(found, Tensor) and (written := _written(function, leaves, kwargs)) is not None:
            return written
        return tree_map(lambda leaf: FakeCuda(leaf) if result_here and isinstance(leaf, Tensor) else leaf, found)


def _held(leaf: Any) -> Any:
    if isinstance(leaf, FakeCuda):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _counts(function: Any, args: Any) -> bool:
    """Whether rows are chosen by a mask, of which the device alone knows how many they are; one value for all becomes a
    masked_fill."""
    if function not in INDEXING or (function is not aten.index.Tensor and args[2].numel() == 1):
        return False
    return any(isinstance(index, Tensor) and index.dtype is torch.bool for index in args[1])


def _written(function: Any, leaves: list[Any], kwargs: Any) -> FakeCuda | None:
    """The argument that an operation in place returns."""
    name = function._schema.name
    if not name.endswith("_") or name.endswith("__"):
        return kwargs.get("out")
    return next(leaf for leaf in leaves if isinstance(leaf, FakeCuda))


def _asking() -> str:
    """The innermost function of a package of `OWNERS`."""
    for frame in reversed(traceback.extract_stack()):
        for owner in OWNERS:
            if f"/{owner}/" in frame.filename and not frame.name.startswith("<"):
                file = Path(frame.filename).relative_to(frame.filename[: frame.filename.rindex(f"/{owner}/")] + "/")
                return f"{file}:{frame.name}"
    return "torch"


def on_device(tensor: Tensor) -> Tensor:
    """``tensor``, ragged or not, on the fake device."""
    if not tensor.is_nested:
        return FakeCuda(tensor)
    known = {"min_seqlen": tensor._get_min_seqlen(), "max_seqlen": tensor._get_max_seqlen(), "jagged_dim": tensor._ragged_idx}
    return torch.nested.nested_tensor_from_jagged(FakeCuda(tensor.values()), FakeCuda(tensor.offsets()), **known)


def move(module: torch.nn.Module) -> None:
    """Moves a module to the fake device, which ``module.to`` cannot. Tied parameters stay tied."""
    moved: dict[int, Tensor] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in moved:
                    fake = FakeCuda(tensor.detach())
                    parameter = isinstance(tensor, torch.nn.Parameter)
                    moved[id(tensor)] = torch.nn.Parameter(fake, tensor.requires_grad) if parameter else fake
                tensors[name] = moved.get(id(tensor))


_NESTED = NestedTensor.__new__


def _nested(*args: Any, **kwargs: Any) -> NestedTensor:
    """A ragged tensor of fake ones, which autograd takes for one of the CPU, as it takes them."""
    FakeCuda.said = torch.device("cpu")
    try:
        return _NESTED(*args, **kwargs)
    finally:
        FakeCuda.said = DEVICE


@contextmanager
def fake_cuda() -> Iterator[Device]:
    """While active, "cuda" is the fake device. Yields it."""
    torch._C._ensureCUDADeviceGuardSet()
    device, lifted = Device(), torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") then copies, which the mode sees
    try:
        with pytest.MonkeyPatch.context() as patch, device:
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
            patch.setattr(NestedTensor, "__new__", _nested)
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
