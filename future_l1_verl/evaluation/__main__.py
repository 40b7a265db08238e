"""``python -m future_l1_verl.evaluation COMMAND``: what a checkpoint answers, how well, and whether its latents matter.

``run`` asks the questions of a task; ``compare`` sets two runs side by side, ``aggregate`` several; ``inspect`` makes a page of
one; ``report`` makes the report of a whole training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from openai import OpenAIError
from rich.console import Console

from future_l1_verl.evaluation import commands, runs
from future_l1_verl.evaluation.comparison import aggregate, aggregate_table, compare, comparison_table
from future_l1_verl.rewards.judge.settings import JudgeUnavailable


def _compare(args: argparse.Namespace) -> int:
    found = compare(runs.read_finished(args.a), runs.read_finished(args.b))
    return _show(found, comparison_table(found, args.a.name, args.b.name), args.json)


def _aggregate(args: argparse.Namespace) -> int:
    found = aggregate([runs.read_finished(folder) for folder in args.runs])
    return _show(found, aggregate_table(found, f"{len(args.runs)} runs"), args.json)


def _show(found: dict, table: object, path: Path | None) -> int:
    Console().print(table)
    if path is not None:
        path.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from future_l1_verl.evaluation.inspection.folder import inspect

    print(inspect(args.run, answers=args.answers, training=args.training, device=args.device))
    return 0


def _report(args: argparse.Namespace) -> int:
    from future_l1_verl.evaluation.report import write_report

    print(write_report(args.run, _named(args.stage), _named(args.intervention)))
    return 0


def _named(entries: Sequence[str]) -> dict[str, Path]:
    """Raises ValueError for an entry that is no NAME=DIR."""
    if wrong := [entry for entry in entries if not all(entry.partition("="))]:
        raise ValueError(f"{wrong[0]!r} is not of the form NAME=DIR")
    return {name: Path(folder) for name, _, folder in (entry.partition("=") for entry in entries)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m future_l1_verl.evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(required=True)
    command = subparsers.add_parser("run", help="ask a checkpoint the questions of a task")
    commands.add_arguments(command)
    command.set_defaults(call=commands.run_command)
    command = subparsers.add_parser("compare", help="two runs of the same questions: paired intervals, McNemar's test")
    command.add_argument("a", type=Path)
    command.add_argument("b", type=Path)
    command.add_argument("--json", type=Path, help="file for the figures")
    command.set_defaults(call=_compare)
    command = subparsers.add_parser("aggregate", help="several runs of the same questions, such as seeds")
    command.add_argument("runs", type=Path, nargs="+")
    command.add_argument("--json", type=Path, help="file for the figures")
    command.set_defaults(call=_aggregate)
    command = subparsers.add_parser("inspect", help="a page with the answers of a run, its spans and latents, and figures")
    command.add_argument("--run", type=Path, required=True, help="folder that `run` wrote to")
    command.add_argument("--answers", type=int, default=100, help="most answers on the page; default: 100")
    command.add_argument("--training", type=Path, help="folder with tensorboard/sft and tensorboard/rl, for their curves")
    command.add_argument("--device", default="cpu", help="of the vision tower that embeds future frames")
    command.set_defaults(call=_inspect)
    command = subparsers.add_parser("report", help="curves, accuracy and samples of a training as PNGs and Markdown")
    command.add_argument("--run", type=Path, required=True, help="folder with tensorboard/sft and tensorboard/rl")
    command.add_argument("--stage", action="append", required=True, metavar="NAME=DIR", help="an evaluation folder; repeat")
    command.add_argument("--intervention", action="append", default=[], metavar="KIND=DIR", help="`run --intervene`; repeat")
    command.set_defaults(call=_report)
    args = parser.parse_args(argv)
    try:
        return args.call(args)
    except (ValueError, JudgeUnavailable, OSError, OpenAIError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
