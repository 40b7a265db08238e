"""``python benchmarks/gpu/run.py [--cpu] [--out DIR] [PHASE ...]``: what only a GPU can show, in at most 13 minutes of one.

A phase is a script in phases/, run as a process of its own under its own time limit; none needs another one. ``DIR/PHASE.json``
is what it measured, written cell by cell, and ``DIR/PHASE.log`` what it printed. One that fails or takes too long is listed
with the reason, and the others go on. ``DIR/results.json`` holds machine and results of all phases so far. A phase whose result
is in ``DIR`` is not run again. Exits with 1 if a phase failed.

Weights are random (checkpoint.py), for a card of 80 GB. The cheapest and most telling phases come first; vLLM is needed from
``engine_parity`` on, Ray's servers by ``stage_2``. ``--cpu``: tiny checkpoints, which only show that the phases work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CODE = (ROOT, HERE.parent, HERE, ROOT / "tests" / "rl")


@dataclass(frozen=True)
class Phase:
    """``seconds`` is its time limit on a GPU; on a CPU all have `CPU_SECONDS`."""

    name: str
    seconds: int
    folder: Path = HERE / "phases"


PHASES = (
    Phase("packed_rows", 75),
    Phase("update_memory", 40),
    Phase("shared_question", 60),
    Phase("reference_offload", 50),
    Phase("attention_kernels", 30),
    Phase("density_rounding", 40),
    Phase("engine_parity", 165),
    Phase("engine_speed", 165),
    Phase("stage_2", 150),
)
CPU_SECONDS = 600
COMMON = {
    "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore",
}  # fmt: skip
ON_CPU = {
    "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """``state``: done, kept (of an earlier run) or failed, with the reason."""

    name: str
    state: str
    seconds: float
    reason: str = ""


def environment(cpu: bool, out: Path) -> dict[str, str]:
    """Returns that of a phase: this one's, and what to import benchmarks and checkout from; vLLM's caches are in ``out``."""
    known = [*map(str, CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    caches = {"VLLM_CACHE_ROOT": str(out / "vllm")}
    return os.environ | COMMON | caches | (ON_CPU if cpu else {}) | {"PYTHONPATH": os.pathsep.join(known)}


def is_complete(result: Path) -> bool:
    return result.exists() and json.loads(result.read_text())["complete"]


def run_phase(phase: Phase, out: Path, cpu: bool) -> Outcome:
    result, log = out / f"{phase.name}.json", out / f"{phase.name}.log"
    if is_complete(result):
        return Outcome(phase.name, "kept", 0.0)
    command = [sys.executable, str(phase.folder / f"{phase.name}.py"), "--out", str(result), *(["--cpu"] if cpu else [])]
    limit, started = max(phase.seconds, CPU_SECONDS if cpu else 0), time.monotonic()
    with log.open("w") as printed:
        # A session of its own, so that what it starts (engines, Ray) ends with it.
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, env=environment(cpu, out), start_new_session=True
        )
        try:
            code = process.wait(limit)
            reason = "" if code == 0 else _last_line(log) or f"exit status {code}"
        except subprocess.TimeoutExpired:
            code, reason = None, f"longer than {limit} s"
        finally:
            _end_session(process)
    return Outcome(phase.name, "failed" if code != 0 else "done", time.monotonic() - started, reason)


def _end_session(process: subprocess.Popen) -> None:
    """Kills what the phase started and left, and the phase itself if it is still there."""
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def run_all(phases: Sequence[Phase], out: Path, cpu: bool) -> list[Outcome]:
    """Runs the phases in their order; ``results.json`` has those of earlier runs too."""
    outcomes, summary = [], out / "results.json"
    found: dict[str, Any] = json.loads(summary.read_text()) if summary.exists() else {"phases": {}}
    found["machine"] = machine(out, cpu)
    for phase in phases:
        outcome = run_phase(phase, out, cpu)
        outcomes.append(outcome)
        print(_shown(outcome), flush=True)
        if outcome.state != "kept":
            found["phases"][phase.name] = {"state": outcome.state, "seconds": outcome.seconds, "reason": outcome.reason}
        result = out / f"{phase.name}.json"
        found["phases"].setdefault(phase.name, {"state": "done"})["result"] = (
            json.loads(result.read_text()) if result.exists() else None
        )
        summary.write_text(json.dumps(found, indent=1) + "\n")
    return outcomes


def machine(out: Path, cpu: bool) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "machine.py")]
    return json.loads(subprocess.run(command, env=environment(cpu, out), check=True, capture_output=True, text=True).stdout)


def _shown(outcome: Outcome) -> str:
    return f"{outcome.name:18}{outcome.state:8}{outcome.seconds:6.0f} s  {outcome.reason}".rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [phase.name for phase in PHASES]
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args(arguments)
    if unknown := sorted(set(args.phases) - set(names)):
        parser.error(f"there is no phase {unknown[0]}; there are {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the phase that runs ends with this process
    out = args.out.resolve()  # Ray's workers have working directories of their own
    out.mkdir(parents=True, exist_ok=True)
    outcomes = run_all([phase for phase in PHASES if phase.name in (args.phases or names)], out, args.cpu)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} phases are there, in {out / 'results.json'}")
    for outcome in failed:
        print(f"failed: {outcome.name}: {outcome.reason} ({out / outcome.name}.log)")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
