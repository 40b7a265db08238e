"""The subcommand ``estimate``: predicts the cost of scoring N candidates on M replicas from the shards of a measured sample.

With a shard's seconds divided by its candidates, and means over shards of decode ``d``, generation ``g`` and judging ``j``::

    decode   = N d / cpus    one core decodes a shard at a time
    generate = N g / M       one replica generates a shard at a time
    judge    = N j           one process judges for all replicas; or N calls / rate, if the judge's rate is given
    wall     = engine start + max(decode, generate, judge)
    GPU time = M wall        each replica holds one GPU from start to end

``cpus`` are those of all machines together. `score` lets two shards share a core: if the cores were that busy in the sample,
``d`` is up to twice the time on one core, and so is the estimate of decoding.

The three run in parallel, so the slowest sets the pace. Every mean has a 95 % bootstrap interval over shards; the interval of a
derived figure combines the ends of these intervals, which is wider than a joint interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from data_prep.curation import scores
from future_l1_verl.files import as_json
from future_l1_verl.statistics import bootstrap_interval
from future_l1_verl.tables import empty_table

LEAST_SHARDS = 2


class EstimateError(ValueError):
    """No estimate is possible; the message names the file or the setting, and the fix."""


@dataclass(frozen=True)
class Measured:
    """The measurements of ``score`` for a shard: seconds, tokens and counts over its ``candidates``.

    ``rollouts`` texts were requested; ``judge_calls`` of the verdicts needed the server, the others a rule or the cache.
    ``bytes`` is the size of the pixels sent to replicas, ``file_bytes`` that of the shard. ``engine_start_s`` is 0 if no
    engine was started.
    """

    candidates: int
    decode_s: float
    generate_s: float
    judge_s: float
    prompt_tokens: int
    generated_tokens: int
    rollouts: int
    judge_calls: int
    bytes: int
    engine_start_s: float
    file_bytes: int


class Figure(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Figure:
        """Applies ``function``, which must be increasing, to the mean and both ends."""
        return Figure(*map(function, self))


@dataclass(frozen=True)
class Estimate:
    """The seconds of the three stages and in total, and totals over all candidates."""

    decode_s: Figure
    generate_s: Figure
    judge_s: Figure
    wall_s: Figure
    gpu_hours: Figure
    rollouts: Figure
    judge_calls: Figure
    prompt_tokens: Figure
    generated_tokens: Figure
    stored_bytes: Figure
    sent_bytes: Figure
    bottleneck: str
    assumptions: list[str]


def estimate(
    measured: Sequence[Measured], candidates: int, replicas: int, cpus: int, judge_rate: float | None = None
) -> Estimate:
    """Estimates as described at the top of this file. ``judge_rate`` is in calls per second, of all replicas together.

    Raises EstimateError on fewer than two full shards (there would be no interval) or settings below 1.
    """
    for name, value in (("candidates", candidates), ("replicas", replicas), ("cpus", cpus)):
        if value < 1:
            raise EstimateError(f"{name} must be at least 1, not {value}")
    if judge_rate is not None and judge_rate <= 0:
        raise EstimateError(f"judge rate must be above 0 calls a second, not {judge_rate}")
    size = max((shard.candidates for shard in measured), default=0)
    full = [shard for shard in measured if shard.candidates == size]
    if len(full) < LEAST_SHARDS:
        raise EstimateError(f"{len(full)} full shards were measured, {LEAST_SHARDS} are needed; score more, or smaller shards")

    def total(name: str) -> Figure:
        each = [getattr(shard, name) / size for shard in full]
        return Figure(sum(each) / len(each), *bootstrap_interval(each)).map(lambda value: candidates * value)

    starts = [shard.engine_start_s for shard in measured if shard.engine_start_s > 0]
    start = sum(starts) / len(starts) if starts else 0.0
    calls = total("judge_calls")
    stages = {
        "decode": total("decode_s").map(lambda value: value / cpus),
        "generate": total("generate_s").map(lambda value: value / replicas),
        "judge": total("judge_s") if judge_rate is None else calls.map(lambda value: value / judge_rate),
    }
    wall = Figure(*(start + max(ends) for ends in zip(*stages.values(), strict=True)))
    judged = f"at {judge_rate:g} calls/s in all" if judge_rate else "at the sample's pace, however many replicas ask"
    return Estimate(
        *stages.values(),
        wall_s=wall,
        gpu_hours=wall.map(lambda value: replicas * value / 3600),
        rollouts=total("rollouts"),
        judge_calls=calls,
        prompt_tokens=total("prompt_tokens"),
        generated_tokens=total("generated_tokens"),
        stored_bytes=total("file_bytes"),
        sent_bytes=total("bytes"),
        bottleneck=max(stages, key=lambda name: stages[name].mean),
        assumptions=[
            f"the candidates are like the {len(full) * size:,} of the sample's {len(full)} full shards "
            f"({len(measured) - len(full)} smaller left out), and so are model, prompts and hardware",
            f"decoding, generation and judging run side by side; decoding on {cpus} cores in all that nothing else uses",
            f"each of {replicas} replicas works at the sample's pace, on one GPU that it holds to the end; shares are even",
            f"the judge answers {judged}, and as many verdicts need it as in the sample",
            f"every replica starts once, in {start:.0f} s (mean of {len(starts)} starts measured)",
            "no restart, outage or retry beyond those in the sample",
        ],
    )


def read(folder: Path) -> list[Measured]:
    """Returns the shards' measurements. Raises ScoresError without shards, EstimateError on one without measurements."""
    found = []
    for shard in scores.shards(folder):
        try:
            found.append(Measured(**scores.measured(shard), file_bytes=shard.stat().st_size))
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise EstimateError(
                f"{shard}: metadata {scores.MEASURED.decode()!r} cannot be read ({error!r}); score the sample again"
            ) from error
    return found


def run(args: argparse.Namespace) -> None:
    """Prints the estimate and its assumptions. Raises EstimateError or ScoresError."""
    result = estimate(read(args.scores), args.candidates, args.replicas, args.cpus, args.judge_rate)
    console = Console()
    console.print(as_table(result, f"{args.candidates:,} candidates on {args.replicas} replicas"))
    for assumption in result.assumptions:
        console.print(f"- {assumption}")
    if args.json:
        content = {key: value._asdict() if isinstance(value, Figure) else value for key, value in vars(result).items()}
        args.json.write_text(as_json(content))


def as_table(result: Estimate, title: str) -> Table:
    """Returns a table for the terminal, which names the slowest stage."""
    table = empty_table("", "estimate", "95 % interval", title=f"{title}; {result.bottleneck} sets the pace")
    for field in fields(result):
        if isinstance(value := getattr(result, field.name), Figure):
            name, units = _shown(field.name)
            mean, low, high = (_with_unit(number, units) for number in value)
            table.add_row(name, mean, f"{low} .. {high}")
    return table


def _shown(name: str) -> tuple[str, dict[str, float]]:
    """Returns the label of a figure, and its units, the largest first."""
    if name.endswith("_s"):
        return name[:-2], {"h": 3600, "min": 60, "s": 1}
    if name.endswith("_bytes"):
        return name[:-6], {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    if name == "gpu_hours":
        return "GPU time", {"h": 1, "min": 1 / 60, "s": 1 / 3600}
    return name.replace("_", " "), {"": 1}


def _with_unit(number: float, units: dict[str, float]) -> str:
    """Returns a number in the largest unit of which it has at least one, or else the smallest."""
    unit, size = next(((unit, size) for unit, size in units.items() if number >= size), list(units.items())[-1])
    return f"{number / size:,.1f} {unit}" if unit else f"{number:,.0f}"
