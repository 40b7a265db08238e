"""Makes a file of candidates of TwiFF, of conversations or of questions.

Rows and clips that cannot be used are left out, and listed beside it with the reason.
"""

import argparse
from pathlib import Path

from data_prep.curation.checking import DECODE
from future_l1_verl.arguments import Parser, number, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--input", type=Path, nargs="+", action="extend", required=True, help=".parquet, .json or .jsonl files")
    parser.add_argument("--out", type=Path, required=True, help="parquet file of candidates; an earlier one is replaced")
    parser.add_argument("--videos", help="where clips are: a folder, a map or a template; by default the folder of the input")
    parser.add_argument("--manifest", type=Path, help="what was left out and why; by default beside --out, as .skipped.jsonl")
    parser.add_argument("--limit", type=positive, help="how many of the first rows to read")
    parser.add_argument("--max-bad-rate", type=number(0, 1), default=0.01, help="share of rows above which the run ends")
    parser.add_argument("--max-missing", type=number(0, 1), default=0.01, help="share of rows whose clip may be missing")
    parser.add_argument("--decode", choices=DECODE, default="first", help="how much of each clip to decode")
    parser.add_argument("--workers", type=positive, default=2, help="processes that look at clips")


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.read import run

    run(args)
