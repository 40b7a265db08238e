"""Cells of shared_prompt.py, what it saves to compute a question once, in bf16 and 8B's width."""

from __future__ import annotations

import shared_prompt
import torch
from checkpoint import checkpoint
from record import Form, Record, run
from shared_prompt import SIZES, Model, widened
from transformers import AutoConfig

MAX_GB = 40.0  # of logits and their gradients


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny" if form.cpu else "8b, 2 layers", form.folder)
    kind = widened(path) if form.cpu else Model(path, AutoConfig.from_pretrained(path), torch.bfloat16)
    rounds = 1 if form.cpu else 3
    for size, n in (("60/30", 4),) if form.cpu else (("1600/100", 8), ("60/30", 8), ("3200/195", 8)):
        count = 1 if form.cpu else SIZES[size].questions
        cell = (kind, SIZES[size], count, n, rounds, MAX_GB)
        record.cell(f"{size} n={n}", lambda cell=cell: shared_prompt.measure(*cell))


if __name__ == "__main__":
    run(measure)
