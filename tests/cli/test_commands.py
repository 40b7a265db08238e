"""All commands: help at once and whole, and one line for what cannot be used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from future_l1_verl import cli

HEAVY = ("torch", "transformers", "vllm", "ray", "verl", "matplotlib", "pandas", "scipy", "openai")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "future_l1_verl.cli", *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_argument_is_explained_and_defaults_are_shown(name: str) -> None:
    parser = cli.parser(name)
    arguments = [action for action in parser._actions if action.dest != "help"]
    assert arguments and all(action.help for action in arguments)
    shown = " ".join(parser.format_help().split())
    for action in arguments:
        if isinstance(action.default, int | float | str) and not isinstance(action.default, bool):
            assert f"(default: {action.default})" in shown


def test_help_needs_no_heavy_library() -> None:
    """Of every command, one after the other in one process; a library that is imported there costs a user seconds."""
    code = f"""
import sys
from future_l1_verl import cli
for name in cli.COMMANDS:
    try:
        cli.main([*name.split(), "--help"])
    except SystemExit as ended:
        assert not ended.code
assert cli.main(["--help"]) == 0
print("HEAVY", [each for each in {HEAVY} if each in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["eval"], ["curate", "--help"]])
def test_the_list_of_commands_fits_a_terminal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    begun = "" if arguments == ["--help"] else f"{arguments[0]} "
    for name in cli.COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines) == name.startswith(begun)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("evl", "there is no command evl"),
        ("eval rnu --task rl", "there is no command eval rnu; did you mean eval run?"),
        ("eval run --taks rl", "there is no --taks; did you mean --task?"),
        ("eval run --task futurbench --data a --model b --out c", "argument --task: invalid choice: 'futurbench' (choose from"),
        ("eval run --task rl --data a --model b --out c --top-p 2", "argument --top-p: must be from 1e-06 to 1, not 2"),
        ("eval run --task rl --data a --model nowhere --out c", "--model nowhere: holds no config.json"),
        ("export --run", "argument --run: expected one argument"),
        ("export --out x", "the following arguments are required: --run"),
        ("curate score --engine {x}", "argument --engine: must be a JSON object, not {x}"),
        ("curate estimate --scores nowhere --candidates 0 --replicas 1 --cpus 1", "argument --candidates: must be at least 1"),
        ("rl rewards.contrast=0.5", "there is no key rewards.contrast; did you mean rewards.contrastive?"),
        ("rl ablation=lamdapo", "there is no ablation 'lamdapo'; choose one of dapo+ctr, dapo+div, dapo, depo, grpo, la_dapo"),
        ("rl pools=seperate", "there is no pools 'seperate'; choose one of colocated, colocated_async, separate"),
        ("rl latent.spans", "'latent.spans' is not of the form KEY=VALUE"),
        ("sft data.train_files=[a", "no viable alternative"),
        ("sft --dry", "there is no --dry"),
    ],
)
def test_a_mistake_is_one_line_and_2(arguments: str, said: str) -> None:
    done = run(*arguments.split())
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("future-l1") and said in line


def test_an_error_of_the_work_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that fails is no mistake of who started it; what is wrong before it begins is."""

    def fail(*_: object) -> None:
        raise ValueError("something inside")

    monkeypatch.setattr("future_l1_verl.rl.start.prepare", lambda *_: fail)
    with pytest.raises(ValueError, match="something inside"):
        cli.main(["rl", "platform=cpu"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("future_l1_verl.rl.start.prepare", fail)
    assert cli.main(["rl", "platform=cpu"]) == 2
    assert capsys.readouterr().err == "future-l1 rl: something inside\n"


WITH_REWARDS_ALONE = """
import sys

from future_l1_verl import cli


class Lacking:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {libraries}:
            raise ModuleNotFoundError(name=name)


sys.meta_path.insert(0, Lacking())
for arguments in sys.argv[1:]:
    print(cli.main(arguments.split()))
"""


def test_in_an_environment_of_the_rewards_alone_a_command_says_what_it_needs() -> None:
    needed = {
        "judge --check http://localhost:1/v1": "openai",
        "prepare --model a --out b --max-latents 4": "safetensors",
        "sft model.path=a": "omegaconf",
        "rl platform=cpu": "omegaconf",
        "export --run a --out b": "safetensors",
        "eval run --task rl --model a --data b --out c": "ijson",
        "eval compare a b": "safetensors",
        "report --run a --stage x=y": "matplotlib",
        "curate read --input a --videos b --out c": "av",
        "curate score --candidates a --videos b --out c --model m": "PIL",
    }
    libraries = {*HEAVY, "av", "ijson", "numpy", "omegaconf", "PIL", "pydantic", "rich", "safetensors", "tqdm"} - {"torch"}
    code = WITH_REWARDS_ALONE.replace("{libraries}", repr(libraries))
    done = subprocess.run([sys.executable, "-c", code, *needed, "doctor"], capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if line.startswith("future-l1")]
    assert "Traceback" not in done.stderr
    names = (next(name for name in cli.COMMANDS if arguments.startswith(f"{name} ")) for arguments in needed)
    assert lines == [
        f"future-l1 {name}: needs {library}, which this environment lacks (docs/install.md)"
        for name, library in zip(names, needed.values(), strict=True)
    ]
    # The doctor goes on to its last check.
    assert done.stdout.split()[: len(needed)] == ["2"] * len(needed)
    assert done.stdout.splitlines()[-2].startswith("FIX  engine") and done.stdout.splitlines()[-1] == "1"
