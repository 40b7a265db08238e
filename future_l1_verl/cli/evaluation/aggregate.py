"""Sums up several runs of the same questions, such as those of several seeds."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--json", type=Path, help="file for the figures")


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.evaluation import runs
    from future_l1_verl.evaluation.comparison import aggregate, aggregate_tables
    from future_l1_verl.evaluation.scoring import show

    found = aggregate([runs.read_finished(folder) for folder in args.runs])
    show(found, aggregate_tables(found, f"{len(args.runs)} runs"), args.json)
