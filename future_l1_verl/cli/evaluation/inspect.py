"""Makes a page of the answers of a run, with their spans, latents and figures."""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder that `eval run` wrote to")
    parser.add_argument("--answers", type=positive, default=100, help="most answers on the page")
    parser.add_argument("--training", type=Path, help="folder with tensorboard/sft and tensorboard/rl, for their curves")
    parser.add_argument("--device", default="cpu", help="where the vision tower embeds future frames")


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.evaluation.inspection.folder import inspect

    print(inspect(args.run, answers=args.answers, training=args.training, device=args.device))
