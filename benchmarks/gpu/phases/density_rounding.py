"""How far the densities of latents move if only the size of the micro-batch changes: ``|log ratio|`` of the same weights.

The latents are the model's own states, with noise of the gaussian's sigma.
"""

from __future__ import annotations

from typing import Any

import torch
from checkpoint import checkpoint
from learner import Learner, gap, questions, tree
from record import Form, Record, run

from future_l1_verl.latents.likelihood import Family

FAMILIES = {"gaussian": Family("gaussian", sigma=0.1), "vmf": Family("vmf", kappa=0.01)}


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny untied" if form.cpu else "8b, 2 layers", form.folder)
    data = questions(path, *((16, (20, 24, 33, 28)) if form.cpu else (256, (96, 120, 64, 200))), count=2)

    def densities(precision: str) -> dict[str, Any]:
        learner = Learner(tree(path, precision))
        states = {
            size: learner.infer(data, states=True, micro_batch=size)["latent_states"].values().float() for size in (8, 2, 1)
        }
        noise = torch.randn(states[8].shape, generator=torch.Generator().manual_seed(0))
        latents = states[8] + FAMILIES["gaussian"].sigma * noise
        found: dict[str, Any] = {"latents": len(latents), "hidden": latents.shape[1]}
        for name, family in FAMILIES.items():
            by_size = {size: family.log_density(each, latents) for size, each in states.items()}
            found[name] = {f"8 rows and {size}": gap(by_size[8], by_size[size]) for size in (2, 1)}
        return found

    for precision in ("bf16", "fp32"):
        record.cell(precision, lambda precision=precision: densities(precision))


if __name__ == "__main__":
    run(measure, ranks=True)
