"""Trains stage 2: LA-DAPO and the other rows of the paper's table, on verl's trainer, vLLM and Ray.

Example: future-l1 rl actor_rollout_ref.model.path=DIR data.train_files=FILE data.val_files=FILE trainer.default_local_dir=DIR.
"""

import argparse

from future_l1_verl.arguments import Parser
from future_l1_verl.cli import stage


def add_arguments(parser: Parser) -> None:
    stage.add_arguments(parser, "rl")


def run(args: argparse.Namespace) -> stage.Work | None:
    from future_l1_verl.rl.start import prepare

    return stage.run(args, "rl", prepare)
