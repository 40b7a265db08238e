"""An untied model under verl's ways to keep weights on the host, on a micro-batch of text alone.

``reference``: forward-only with FSDP2's offload to the CPU, as the reference is; its log-probs must be finite. ``updates``: two
updates with and without the offload of parameters and optimiser between them; the losses must be the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from actor_harness import with_old
from checkpoint import checkpoint
from learner import ENGINE, Learner, gap, questions, tree
from record import Form, Record, run


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny untied" if form.cpu else "8b, 2 layers", form.folder)
    data = questions(path, *((16, (20,) * 4) if form.cpu else (256, (96,) * 4)), count=2)

    def reference() -> dict[str, Any]:
        """Raises ValueError if log-probs are not finite."""
        log_probs = [Learner(tree(path, "bf16"), forward_only=only).log_probs(data) for only in (True, False)]
        if not torch.isfinite(log_probs[0]).all():
            raise ValueError("the reference's log-probs are not finite")
        return {"scored": int(data["responses"].values().numel()), "gap_to_actor": gap(*log_probs)}

    def updates() -> dict[str, Any]:
        """Raises ValueError if a loss is not finite."""
        found = {name: _two_updates(path, data, offload) for name, offload in (("kept", False), ("offloaded", True))}
        losses = {name: each["losses"] for name, each in found.items()}
        if not all(math.isfinite(loss) for each in losses.values() for loss in each):
            raise ValueError(f"losses are not finite: {losses}")
        return found | {"gap": max(abs(a - b) for a, b in zip(losses["kept"], losses["offloaded"], strict=True))}

    record.cell("reference", reference)
    record.cell("updates", updates)


def _two_updates(path: Any, data: Any, offload: bool) -> dict[str, Any]:
    settings = [f"{ENGINE}.{key}_offload={str(offload).lower()}" for key in ("param", "optimizer")]
    learner = Learner(tree(path, "bf16", *settings))
    batch = with_old(learner, data)
    losses = [learner.step(batch) for _ in range(2)]
    return {"losses": losses, "allocated_after": torch.cuda.memory_allocated() if torch.cuda.is_available() else 0}


if __name__ == "__main__":
    run(measure, ranks=True)
