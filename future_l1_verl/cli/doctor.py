"""Says what works on this machine, and what to do about what does not.

Each line is one thing that a run needs: ``ok`` and what was found, or ``FIX`` and what to do. The last one starts an engine and
decodes a token with it, which takes most of a minute. Exits with 1 if there is something to fix.
"""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--platform", choices=("cuda", "cpu"), default="cuda", help="what runs are to compute on")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint with latent tokens; default: a tiny one")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster; default: RAY_ADDRESS")
    parser.add_argument("--judge", metavar="URL", help="what comes before /chat/completions")


def run(args: argparse.Namespace) -> int:
    from future_l1_verl.doctor import Asked, examine

    return examine(Asked(args.platform, args.model, args.ray, args.judge))
