"""Makes training files of the selected candidates, and a card of them."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, number
from future_l1_verl.cli.curation import overlap


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--selected", type=Path, required=True, metavar="FILE", help="selected.parquet of `select`, or its control"
    )
    parser.add_argument(
        "--rl-only",
        action="store_true",
        help="no files of stage 1, no card; --selected may be what `read` made of questions",
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder of the candidates' videos")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--val-fraction", type=number(0, 1), default=0.02, help="share of the videos whose rows are for validation"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these videos")
    overlap.add_arguments(parser)  # --video-id also says which clips are of one video, and so of one part
    parser.add_argument("--name", default="future_l1", help="of the data set: data_source of stage 2, and title of the card")


def run(args: argparse.Namespace) -> None:
    from data_prep.curation.build import run

    run(args)
