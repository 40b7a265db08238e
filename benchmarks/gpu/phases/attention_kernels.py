"""The kernels of packed attention (modeling/attention.py): time of a forward and a backward, and error against fp32."""

from __future__ import annotations

import time
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from record import Form, Record, run
from torch import Tensor

from future_l1_verl.modeling.attention import KERNELS, attend
from future_l1_verl.modeling.packing import Packing

SIZES = {"1600/100 n=8": (1600, (100,) * 8), "3200/195 n=8": (3200, (195,) * 8), "unlike lengths": (1200, (20, 300, 90, 700))}
ROUNDS = 10


def measure(record: Record, form: Form) -> None:
    device, dtype = ("cpu", torch.float32) if form.cpu else ("cuda", torch.bfloat16)
    heads, key_heads, width = (4, 2, 32) if form.cpu else (32, 8, 128)
    sizes = {"40/10 n=4": (40, (10, 12, 9, 10))} if form.cpu else SIZES
    for size, (prompt, answers) in sizes.items():
        packing = Packing((prompt,), answers, (0,) * len(answers), device=device)
        generator = torch.Generator(device).manual_seed(0)
        query, key, value = (
            torch.randn(len(packing), count, width, generator=generator, device=device).to(dtype)
            for count in (heads, key_heads, key_heads)
        )
        exact = _passes("sdpa", [each.float() for each in (query, key, value)], packing)
        for kernel in KERNELS:
            name = f"{kernel}, {size}"
            if kernel == "flash_attention_2" and (form.cpu or not find_spec("flash_attn")):
                record.skip(name, "flash-attn needs a GPU" if form.cpu else "flash-attn is not installed")
                continue
            given = (kernel, [query, key, value], packing, exact)
            record.cell(name, lambda given=given: _cell(*given, rounds=1 if form.cpu else ROUNDS))


def _passes(kernel: str, given: list[Tensor], packing: Packing) -> list[Tensor]:
    """Returns the output and the gradients of query, key and value."""
    query, key, value = (each.detach().requires_grad_() for each in given)
    out = attend(query, key, value, packing, query.shape[-1] ** -0.5, KERNELS[kernel])
    out.backward(torch.ones_like(out))
    return [out.detach(), query.grad, key.grad, value.grad]


def _cell(kernel: str, given: list[Tensor], packing: Packing, exact: list[Tensor], rounds: int) -> dict[str, Any]:
    found = _passes(kernel, given, packing)
    errors = [float((mine.float() - theirs).norm() / theirs.norm()) for mine, theirs in zip(found, exact, strict=True)]
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        _passes(kernel, given, packing)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {
        "tokens": len(packing), "milliseconds": 1000 * median(seconds),
        "relative_error": dict(zip(("output", "by_query", "by_key", "by_value"), errors, strict=True)),
    }  # fmt: skip


if __name__ == "__main__":
    run(measure)
