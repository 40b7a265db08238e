"""The shell commands of README and the pages: each parses as it is written, and each recipe's dry run accepts its arguments."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from dry_run import copy_of_recipes, printed

from future_l1_verl import cli
from future_l1_verl.config.tree import composed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))]
BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# Programs that commands begin with, as functions that write down how they are called. Those of an environment may be named by
# their path or, once it is activated, by their name.
RECORDING = "".join(
    f'{name}() {{ "$PYTHON" -c "import json, sys; print(json.dumps(sys.argv[1:]))" {name} "$@" >>"$CALLS"; }}\n'
    for name in ("bash", "future-l1", "vllm", "sbatch", "ray", "pip")
)
# What other programs are asked to do, which no test does.
OTHERS = {("vllm", "serve"), ("ray", "get-auth-token"), ("ray", "start"), ("pip", "install"), ("bash", "tests/run.sh")}
OTHERS |= {("bash", "tests/serve.sh")}


def blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        if page.parent.name == "reference":  # usage texts
            continue
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            yield f"{page.relative_to(ROOT)}:{text[: found.start()].count(chr(10)) + 1}", found[2]


def called(block: str, folder: Path) -> list[list[str]]:
    """The commands of a block, with what their shell makes of variables and quotes."""
    script = block.replace(".venv/bin/", "").replace("source activate", ":").replace(" ...\n", "\n")
    environment = {"PYTHON": sys.executable, "CALLS": str(folder / "calls"), "PATH": ""}
    done = subprocess.run(
        ["/bin/bash", "-euc", RECORDING + script], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@cache
def help_of(recipe: str) -> str:
    done = subprocess.run(["bash", ROOT / recipe, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(program: str, *arguments: str) -> None:
    """Raises, or ends the process as a command line does, if the arguments of a command cannot be used."""
    match program:
        case "future-l1":
            if arguments == ("--help",):
                return
            name = next(" ".join(arguments[:words]) for words in (2, 1) if " ".join(arguments[:words]) in cli.COMMANDS)
            given = cli.parser(name).parse_args(arguments[len(name.split()) :])
            if name in ("sft", "rl"):
                composed(name, given.overrides)
        case "sbatch":
            check_recipe(f"recipes/{arguments[3]}", *arguments[4:])  # after --nodes N recipes/slurm.sh
        case "bash" if (program, arguments[0]) not in OTHERS:
            check_recipe(*arguments)
        case _:
            assert (program, arguments[0]) in OTHERS


def check_recipe(recipe: str, *arguments: str) -> None:
    name, said = recipe.removeprefix("recipes/"), help_of(recipe)
    if name == "env.sh":
        assert arguments[0] in ("cpu", "cuda", "serve")
    elif name in ("quickstart.sh", "study.sh"):  # have no dry run
        for option in (each for each in arguments if re.match("--[a-z]", each)):
            assert re.search(rf"{option}\b(?!-)", said), f"{recipe} --help knows no {option}"
    elif name == "submit.sh":
        check_recipe(f"recipes/{arguments[2]}", *arguments[3:])  # after --address URL
    else:
        for line in printed(name, *arguments, root=copy_of_recipes()).splitlines():
            if line.startswith("["):
                _, module, _, _, _, *overrides = json.loads(line)  # python -m MODULE --cfg job --resolve
                composed(module.removeprefix("future_l1_verl."), overrides)


@pytest.mark.parametrize(("place", "block"), [pytest.param(*each, id=each[0]) for each in blocks()])
def test_each_command_of_a_page_can_be_given(place: str, block: str, tmp_path: Path) -> None:
    if block.startswith("reward."):  # overrides for another trainer's command
        return
    commands = called(block, tmp_path)
    assert commands
    for command in commands:
        check(*command)


@pytest.mark.parametrize(
    "wrong",
    [
        ["future-l1", "eval", "run", "--modle", "m"],
        ["future-l1", "rl", "rewards.contrast=1"],
        ["bash", "recipes/quickstart.sh", "--sede", "1"],
        ["bash", "recipes/la_dapo_futurebench.sh", "--modle", "m"],
        ["vllm", "server"],
    ],
)
def test_a_command_that_cannot_be_given_is_noticed(wrong: list[str]) -> None:
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        check(*wrong)
