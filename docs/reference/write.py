"""``python docs/reference/write.py``: writes the pages of the config keys and of the command line from the code."""

from __future__ import annotations

from pathlib import Path

from future_l1_verl import cli
from future_l1_verl.config.tree import GROUPS, choices, own_keys

HERE = Path(__file__).parent
STAGES = {"sft": "Stage 1", "rl": "Stage 2"}


def config() -> str:
    """Returns the page of the keys that the trees of both stages explain."""
    lines = [
        "# Config keys",
        "",
        "Written by `python docs/reference/write.py` from `future_l1_verl/config`. These are the keys that are ours, and those",
        "of verl of which we have something to say; `future-l1 rl --cfg job` prints all. They are given as `KEY=VALUE`.",
        "",
    ]
    for stage, title in STAGES.items():
        lines += [f"## {title}: `future-l1 {stage}`", "", "| choice | |", "|---|---|"]
        lines += [
            f"| `{group}={name}` | {_cell(text)} |" for group in GROUPS[stage] for name, text in choices(group, stage).items()
        ]
        lines += ["", "| key | default | |", "|---|---|---|"]
        for key in own_keys(stage):
            lines.append(f"| `{key.path}` | {f'`{key.value}`' if key.value else ''} | {_cell(key.text)} |")
        lines.append("")
    return "\n".join(lines)


def command_line() -> str:
    """Returns the page of all commands and their arguments."""
    lines = [
        "# Command line",
        "",
        "Written by `python docs/reference/write.py` from the commands' own help.",
        "",
    ]
    for name in cli.COMMANDS:
        parser = cli.parser(name)
        parser.epilog = None if name not in STAGES else "Keys and choices: see the page of config keys."
        lines += [f"## future-l1 {name}", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    (HERE / "config.md").write_text(config())
    (HERE / "command-line.md").write_text(command_line())


if __name__ == "__main__":
    main()
