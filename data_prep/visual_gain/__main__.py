"""``python -m data_prep.visual_gain read|score|select|recheck|build|estimate``: see data_prep/README.md."""

from __future__ import annotations

import argparse

from data_prep.visual_gain import build, estimate, read, recheck, score, select
from future_l1_verl.config.refusal import refusing

COMMANDS = {"read": read, "score": score, "select": select, "recheck": recheck, "build": build, "estimate": estimate}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.visual_gain", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    return parser


def main() -> None:
    args = parser().parse_args()
    with refusing(args.command):
        args.run(args)


if __name__ == "__main__":
    main()
