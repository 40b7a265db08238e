"""Makes a plain checkpoint folder of a run of stage 1 or 2, which transformers and ``vllm serve`` load as it is.

Adapters of LoRA are merged into the weights.
"""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="trainer.default_local_dir of the training")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=positive, help="which step; default: the last")
    which.add_argument("--best", action="store_true", help="the step with the lowest validation loss (stage 1)")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.modeling.export import export, find, find_best

    source = find_best(args.run) if args.best else find(args.run, args.step)
    export(source, args.out)
    print(f"{source} -> {args.out}")
