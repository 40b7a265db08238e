"""The common part of `future-l1 sft` and `future-l1 rl`: overrides of their config trees in hydra's form."""

import argparse
import logging
import sys
import textwrap
from collections.abc import Callable, Sequence

from omegaconf import DictConfig, OmegaConf

from future_l1_verl.arguments import Parser
from future_l1_verl.config.tree import GROUPS, choices, composed, own_keys

WIDTH = 80
Work = Callable[[], None]


def add_arguments(parser: Parser, stage: str) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the tree, as hydra has them")
    parser.add_argument("--cfg", choices=("job",), help="print the whole tree, verl's keys among them, and end")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: every reference replaced by its value")
    parser.epilog = _explained(stage)


def run(args: argparse.Namespace, stage: str, prepare: Callable[[DictConfig, Sequence[str]], Work]) -> Work | None:
    """Composes the tree and prints it, or returns the training that ``prepare`` makes of it and of the overrides."""
    config = composed(stage, args.overrides)
    if args.cfg:
        print(OmegaConf.to_yaml(config, resolve=args.resolve), end="")
        return None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    return prepare(config, args.overrides)


def _explained(stage: str) -> str:
    """Returns our groups and keys of a tree, with their values, for a terminal."""
    lines = []
    for group in GROUPS[stage]:
        lines.append(f"{group}=NAME, one of")
        for name, text in choices(group, stage).items():
            lines += textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")
    lines += ["", "keys with their values; those of verl are shown by --cfg job"]
    for key in own_keys(stage):
        lines.append(f"  {key.path}={key.value}" if key.value else f"  {key.path}")
        lines += textwrap.wrap(key.text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
