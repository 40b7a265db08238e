"""Says what a selection gains on other rollouts than it was selected by, beside its control."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--selected", type=Path, required=True, metavar="DIR", help="folder that `select --control` wrote to")
    parser.add_argument("--scores", type=Path, required=True, metavar="DIR", help="folder of a `score` with another seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it there")


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.recheck import run

    run(args)
