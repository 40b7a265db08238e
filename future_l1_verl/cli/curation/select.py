"""Keeps the candidates that their future frames help most.

Writes ``selected.parquet``, ``control.parquet`` (as many at random), ``removed.parquet`` and ``report.json``.
"""

import argparse
from pathlib import Path

from data_prep.curation.selection import Rule
from future_l1_verl.arguments import Parser
from future_l1_verl.cli.curation import overlap


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--candidates", type=Path, required=True, metavar="FILE", help="what was scored")
    parser.add_argument("--scores", type=Path, required=True, metavar="DIR", help="folder that `score` wrote to")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument("--top", type=int, default=Rule.top, help="how many to keep at most")
    parser.add_argument("--max-base", type=int, default=Rule.max_base, help="most correct rollouts without future frames")
    parser.add_argument("--min-gain", type=int, default=Rule.min_gain, help="least correct rollouts more with future frames")
    parser.add_argument("--control", action="store_true", help="also draw as many at random, whatever their gain")
    parser.add_argument("--seed", type=int, default=0, help="of the random control")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of the candidates' videos")
    overlap.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.select import run

    run(args)
