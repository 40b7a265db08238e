"""``python benchmarks/faults/run.py NAME... [--times 20] [--work DIR]``: does faults to the product and counts what is lost.

A fault is a file in ``scenarios``: ``DONE`` says what is done, ``UNIT`` what is counted, and ``prepared(work)`` yields a
function that does it once, given the number of the run, and returns its `Outcome`. There are to be ``--times`` runs in
``results/NAME.jsonl``; a command that is stopped goes on where it was. ``table.py`` makes docs/faults.md of those files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from outcome import append, read

HERE = Path(__file__).parent
HARNESSES = [
    str(HERE.parents[1] / "tests" / name) for name in ("", "decoding", "e2e", "modeling", "rl")
]  # processes are started as there


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "scenarios").glob("[a-z]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=names())
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--work", type=Path, help="a folder for what the runs write; a temporary one unless given")
    args = parser.parse_args()
    sys.path.extend(HARNESSES)
    # Read when torch and vLLM are loaded, which scenarios do.
    environment = import_module("e2e_environment").ENVIRONMENT
    os.environ |= environment | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, text=True).strip()
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.name:
            if (first := len(read(name))) >= args.times:
                continue
            work = (args.work or Path(temporary)) / name
            work.mkdir(parents=True, exist_ok=True)
            with import_module(f"scenarios.{name}").prepared(work) as once:
                for number in range(first, args.times):
                    outcome = once(number)
                    append(name, outcome, commit)
                    print(f"{name} {number + 1}/{args.times}: {outcome}", flush=True)


if __name__ == "__main__":
    main()
