"""Says what scoring would cost, from a sample that was scored."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--scores", type=Path, required=True, metavar="DIR", help="folder that `score` wrote the sample to")
    parser.add_argument("--candidates", type=positive, required=True, help="how many are to be scored")
    parser.add_argument("--replicas", type=positive, required=True, help="engine replicas, each with a GPU")
    parser.add_argument("--cpus", type=positive, required=True, help="cores that decode, of all machines together")
    parser.add_argument("--judge-rate", type=float, help="calls a second that the judge bears; default: as in the sample")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it there")


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.estimate import run

    run(args)
