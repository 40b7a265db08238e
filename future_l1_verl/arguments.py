"""The parser of all commands: an error is one line, and the help of an option states its default."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from future_l1_verl.wording import did_you_mean


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default of an option to its text, unless it is empty, and wraps the paragraphs of a description.

    Lines have 80 columns on every terminal, for docs/reference/write.py.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " in text:  # a list
            return text
        return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default in (argparse.SUPPRESS, [], {})
        return action.help if nothing or not action.help else f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are one line and exit status 2; positional arguments may be anywhere."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False)

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        known = [name for action in self._actions for name in action.option_strings]
        given = [each.split("=")[0] for each in (sys.argv[1:] if args is None else args)]
        if unknown := [each for each in given if each.startswith("--") and each not in known]:
            self.error(f"there is no {unknown[0]}{did_you_mean(unknown[0], known)}")
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    """Reads an argument that is a whole number of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def number(least: float, most: float) -> Callable[[str], float]:
    """Returns a type of arguments: a number from ``least`` to ``most``."""

    def parsed(text: str) -> float:
        if not least <= (value := float(text)) <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, not {text}")
        return value

    return parsed


def json_object(text: str) -> dict[str, Any]:
    """Reads an argument that is a JSON object."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object, not {text}: {error}") from error
