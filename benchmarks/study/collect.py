"""``python benchmarks/study/collect.py --run DIR --arm ARM --seed N --out FILE``: keeps what the study needs of an arm."""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from results import NOT_ASKED, Curve, Result, to_json

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.curves import read_curves
from future_l1_verl.evaluation.scoring import by_split
from future_l1_verl.files import whole

PACKAGES = ("verl", "vllm", "torch", "transformers")
CURVES = re.compile(
    r"val/(?:[\w-]+/accuracy|all/(?:parsed|n)|loss|latent_(?:error_ratio|retrieval|retrieval_chance))|critic/score/mean|actor/(?:entropy|grad_norm|kl_loss)"
    r"|filter/(?:accuracy_before|keep_rate)|rewards/\w+/(?:mean|std)|latents/(?:spans|latents)_per_answer|response_length/mean"
)
INTERVENTIONS = ("swap", "zero")


def collect(run: Path, name: str, arm: str, seed: int) -> Result:
    """Reads ``run/evaluation/NAME``, those with interventions beside it, ``run/tensorboard/NAME`` and ``run/logs``.

    What is not there was not done: an arm without training has no curves, one that was only validated no verdicts. Raises
    RunError for an evaluation that is no result.
    """
    folder = run / "evaluation" / name
    evaluations = {"": folder} | {f"-{kind}": folder.with_name(f"{folder.name}-{kind}") for kind in INTERVENTIONS}
    finished = {suffix: runs.read_finished(each).records for suffix, each in evaluations.items() if each.is_dir()}
    verdicts, means = {}, {}
    groups = by_split([record.split for record in finished[""]]) if finished else {"all": []}
    del groups["all"]
    for split, rows in groups.items():
        records = [finished[""][row] for row in rows]
        verdicts[split] = {
            "right": _bits(record.scores["accuracy"] for record in records),
            "parsed": _bits(record.parsed for record in records),
            "reasoning": _bits(record.reasoning_true for record in records),
        } | {
            kind: _bits(asked[row].scores["accuracy"] if row < len(asked) else None for row in rows)
            for kind in INTERVENTIONS
            if (asked := finished.get(f"-{kind}"))
        }
        means[split] = {
            "spans": _mean([len(record.spans) for record in records]),
            "latents": _mean([sum(record.spans) for record in records]),
            "tokens": _mean([len(record.token_ids) for record in records]),
        }
    tensorboard, logs = run / "tensorboard" / name, run / "logs"
    curves = read_curves(tensorboard) if tensorboard.is_dir() else {}
    return Result(
        arm=arm,
        seed=seed,
        commit=subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, text=True).strip(),
        machine=f"{cpu_count()} CPUs, {platform.machine()}",
        versions={name: version(name) for name in PACKAGES},
        seconds=_seconds(logs, name),
        verdicts=verdicts,
        means=means,
        curves={tag: _short(curve) for tag, curve in sorted(curves.items()) if CURVES.fullmatch(tag)},
    )


def _seconds(logs: Path, name: str) -> dict[str, int]:
    """Returns the seconds of training and evaluation; for stage 2 of a finished quickstart those of the whole run as well."""
    done = {"training": logs / f"{name}.done", "evaluation": logs / f"evaluate-{name}.done"}
    seconds = {stage: int(path.read_text()) for stage, path in done.items() if path.is_file()}
    first, last = logs / "data.done", logs / "report.done"
    if name == "rl" and last.is_file():
        seconds["quickstart"] = round(last.stat().st_mtime - first.stat().st_mtime) + int(first.read_text())
    return seconds


def _bits(verdicts: Iterable[float | None]) -> str:
    """Returns a 0 or 1 for each verdict, and `NOT_ASKED` for None."""
    return "".join(NOT_ASKED if verdict is None else str(int(verdict)) for verdict in verdicts)


def _mean(values: list[int]) -> float:
    return round(sum(values) / len(values), 4)


def _short(curve: Curve) -> Curve:
    return [(step, float(f"{value:.4g}")) for step, value in curve]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a quickstart")
    parser.add_argument("--name", help="of its folders in the run; the arm's where it is not given")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    result = collect(args.run, args.name or args.arm, args.arm, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole(args.out) as temporary:
        temporary.write_text(to_json(asdict(result)))


if __name__ == "__main__":
    main()
