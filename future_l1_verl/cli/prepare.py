"""Adds the latent tokens to a checkpoint of Qwen3-VL or Qwen2.5-VL.

Writes a new folder, whose ``config.json`` has the ids of the tokens and the most latents of a span. Weights are linked where
the file system allows it.
"""

import argparse
from pathlib import Path

from future_l1_verl.arguments import Parser, positive


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--max-latents", type=positive, default=4, help="latents of a span at most (L_max)")


def run(args: argparse.Namespace) -> None:
    from future_l1_verl.modeling.prepare import prepare

    print(prepare(args.model, args.out, args.max_latents))
