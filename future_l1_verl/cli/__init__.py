"""``future-l1 COMMAND``: all commands, each a file here that defines its arguments and starts the work.

A file of a command has ``add_arguments(parser)`` and ``run(args)``, and imports heavy libraries only in the latter, so that
help is fast. Its docstring is its help; the first paragraph is in the list of commands. ``run`` returns an exit status or None,
or, after it has checked the user's input, a function that does the work, whose errors keep their tracebacks.
"""

import ast
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module, resources
from types import ModuleType

from future_l1_verl.arguments import Parser
from future_l1_verl.collector import spare_libraries
from future_l1_verl.rewards.judge.settings import JudgeUnavailable
from future_l1_verl.versions import UnsupportedVersion
from future_l1_verl.wording import did_you_mean

# Their names, of one word or two, and their modules.
COMMANDS = {
    "doctor": "doctor",
    "prepare": "prepare",
    "sft": "sft",
    "rl": "rl",
    "export": "export",
    "judge": "judge",
    "eval run": "evaluation.run",
    "eval compare": "evaluation.compare",
    "eval aggregate": "evaluation.aggregate",
    "eval inspect": "evaluation.inspect",
    "report": "report",
    "curate read": "curation.read",
    "curate score": "curation.score",
    "curate estimate": "curation.estimate",
    "curate select": "curation.select",
    "curate recheck": "curation.recheck",
    "curate build": "curation.build",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that ``argv`` begins with; returns the exit status: 2 for arguments that cannot be used."""
    if argv is None:  # the process is this command
        spare_libraries()
    given = list(sys.argv[1:] if argv is None else argv)
    for words in (2, 1):
        if (name := " ".join(given[:words])) in COMMANDS:
            return _run(name, given[words:])
    begun = given[0] if given else ""
    inside = [name for name in COMMANDS if name.startswith(f"{begun} ")]
    if not given or begun in ("-h", "--help") or (inside and given[1:] in ([], ["-h"], ["--help"])):
        print(_listed(inside or list(COMMANDS)))
        return 0
    unknown = " ".join(given[:2]) if inside else begun
    print(f"future-l1: there is no command {unknown}{did_you_mean(unknown, COMMANDS)} (see future-l1 --help)", file=sys.stderr)
    return 2


def parser(name: str) -> Parser:
    """Returns the parser of a command."""
    module = _module(name)
    found = Parser(f"future-l1 {name}", module.__doc__)
    module.add_arguments(found)
    return found


def _run(name: str, argv: Sequence[str]) -> int:
    try:
        done = _module(name).run(parser(name).parse_args(argv))
    except ModuleNotFoundError as error:
        print(f"future-l1 {name}: needs {error.name}, which this environment lacks (docs/install.md)", file=sys.stderr)
        return 2
    except (ValueError, OSError, JudgeUnavailable, UnsupportedVersion) as error:
        print(f"future-l1 {name}: {error}", file=sys.stderr)
        return 2
    return (done() if callable(done) else done) or 0


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{COMMANDS[name]}")


def _listed(names: Sequence[str]) -> str:
    """Returns a line per command with its description, read from the files without importing them."""
    lines = ["usage: future-l1 COMMAND [ARGUMENTS], and future-l1 COMMAND --help", ""]
    for name in names:
        source = (resources.files(__name__) / f"{COMMANDS[name].replace('.', '/')}.py").read_text(encoding="utf-8")
        told = ast.get_docstring(ast.parse(source)).split("\n\n")[0]
        lines += textwrap.wrap(told, 80, initial_indent=f"  {name:16}", subsequent_indent=" " * 18)
    return "\n".join(lines)
