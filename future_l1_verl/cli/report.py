"""Makes the report of a training: curves, accuracy, and samples, as PNGs and Markdown."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from future_l1_verl.arguments import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder with tensorboard/sft and tensorboard/rl")
    parser.add_argument("--stage", action="append", required=True, metavar="NAME=DIR", help="a run of `eval run`; repeat")
    parser.add_argument(
        "--intervention", action="append", default=[], metavar="KIND=DIR", help="a run of `eval run --intervene KIND`; repeat"
    )


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.toy.report import write_report

    print(write_report(args.run, _named(args.stage), _named(args.intervention)))


def _named(entries: Sequence[str]) -> dict[str, Path]:
    """Returns folders by name. Raises ValueError for an entry that is not of the form NAME=DIR."""
    if wrong := [entry for entry in entries if not all(entry.partition("="))]:
        raise ValueError(f"{wrong[0]!r} is not of the form NAME=DIR")
    return {name: Path(folder) for name, _, folder in (entry.partition("=") for entry in entries)}
