"""Log-probs and gradients of packed questions against those of the same answers with a prompt each, in bf16 and fp32.

``rows`` are in one micro-batch, where attention pads them; ``alone`` is each in one of its own, without padding and without a
mask. ``rounding`` compares bf16 with fp32: how far two ways of the same arithmetic may be apart.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from actor_harness import apart, with_old
from checkpoint import checkpoint
from learner import Learner, gap, questions, tree
from record import Form, Record, run
from torch import Tensor


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny untied" if form.cpu else "8b, 2 layers", form.folder)
    data = questions(path, *((24, (17, 20, 23, 28)) if form.cpu else (512, (120, 128, 136, 200))), count=2)

    @cache
    def found(precision: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Log-probs by way; and how the ways differ."""
        learner = Learner(tree(path, precision, "actor_rollout_ref.actor.optim.lr=0"))
        ways = {"packed": (data, {}), "rows": (apart(data), {}), "alone": (apart(data), {"micro_batch": 1})}
        said = {name: learner.log_probs(batch, **shape) for name, (batch, shape) in ways.items()}
        gradients = {
            name: learner.update(with_old(learner, batch, **shape), **shape)["gradients"]
            for name, (batch, shape) in ways.items()
            if name != "rows"
        }
        return said, {
            "rows": len(data),
            "scored": int(data["responses"].values().numel()),
            "latents": len(data["latents"].values()),
            "log_prob_gap": {name: gap(said[name], said["alone"]) for name in ("packed", "rows")},
            "gradient_error": _relative(gradients["packed"], gradients["alone"]),
        }

    def rounding() -> dict[str, Any]:
        (coarse, _), (fine, _) = found("bf16"), found("fp32")
        return {name: gap(log_probs, fine["alone"]) for name, log_probs in coarse.items()}

    for precision in ("bf16", "fp32"):
        record.cell(precision, lambda precision=precision: found(precision)[1])
    record.cell("rounding", rounding)


def _relative(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    """Returns ``|theirs - ours| / |ours|`` over all parameters."""
    wrong = sum((theirs[name] - each).float().square().sum() for name, each in ours.items())
    right = sum(each.float().square().sum() for each in ours.values())
    return float(torch.sqrt(wrong / right))


if __name__ == "__main__":
    run(measure, ranks=True)
