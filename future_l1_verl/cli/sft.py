"""Trains stage 1: text and latents of the future frames, on verl's FSDP trainer.

Example: future-l1 sft model.path=DIR data.train_files=FILE trainer.default_local_dir=DIR. On several nodes the same command
runs on each of them, with trainer.nnodes, trainer.master_addr and its own trainer.node_rank, and files that all of them see.
"""

import argparse

from future_l1_verl.arguments import Parser
from future_l1_verl.cli import stage


def add_arguments(parser: Parser) -> None:
    stage.add_arguments(parser, "sft")


def run(args: argparse.Namespace) -> stage.Work | None:
    from future_l1_verl.sft.start import prepare

    return stage.run(args, "sft", prepare)
