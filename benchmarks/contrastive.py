"""``python benchmarks/contrastive.py``: R_ctr of a large group on one core, against a loop over its pairs.

Prints a JSON line: milliseconds (median and spread over the runs) and how many times faster the vectorised form is.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch

from future_l1_verl.rewards.latent import contrast, outcome_contrastive

ROLLOUTS, LATENTS, DIMENSIONS, RUNS = 64, 64, 4096, 15


def vectorised(trajectories: list[torch.Tensor], correct: list[bool]) -> None:
    outcome_contrastive(trajectories, correct, 0.5)


def pair_by_pair(trajectories: list[torch.Tensor], correct: list[bool]) -> None:
    size = len(trajectories)
    similar = torch.ones(size, size)
    for i in range(size):
        for j in range(i):
            steps = min(len(trajectories[i]), len(trajectories[j]))
            cosine = torch.cosine_similarity(trajectories[i][:steps], trajectories[j][:steps], dim=-1)
            similar[i, j] = similar[j, i] = (1 + cosine.mean()) / 2
    contrast(similar, correct, 0.5)


def milliseconds(function: Callable[[list[torch.Tensor], list[bool]], None], runs: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    trajectories = [torch.randn(LATENTS, DIMENSIONS, generator=generator) for _ in range(ROLLOUTS)]
    correct = [i % 2 == 0 for i in range(ROLLOUTS)]
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        function(trajectories, correct)
        times.append(1000 * (time.perf_counter() - started))
    return times


def main() -> None:
    torch.set_num_threads(1)
    ours, loop = milliseconds(vectorised, RUNS), milliseconds(pair_by_pair, 3)
    print(json.dumps({
        "rollouts": ROLLOUTS, "latents": LATENTS, "dimensions": DIMENSIONS, "torch": torch.__version__,
        "vectorised_ms": {"median": statistics.median(ours), "min": min(ours), "max": max(ours)},
        "times_faster": statistics.median(loop) / statistics.median(ours),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
