"""Compares two runs of the same questions: paired intervals, and McNemar's test."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("a", type=Path, help="folder of a run")
    parser.add_argument("b", type=Path, help="folder of the run that is set beside it")
    parser.add_argument("--json", type=Path, help="file for the figures")


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.evaluation import runs
    from future_l1_verl.evaluation.comparison import compare, comparison_tables
    from future_l1_verl.evaluation.scoring import show

    found = compare(runs.read_finished(args.a), runs.read_finished(args.b))
    show(found, comparison_tables(found, args.a.name, args.b.name), args.json)
