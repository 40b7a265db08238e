"""Rewards as other trainers call them, by those trainers' own code where PyPI has it: each in a process that can import it."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scored_replies import REPLIES, ROW, SETTINGS, expected, outages

from future_l1_verl.rewards.adapters import easyr1, trl

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture(scope="module")
def outage() -> Iterator[dict[str, Any]]:
    with outages() as settings:
        yield settings


def run(python: Path, code: str, outage: dict[str, Any], folder: Path, path: str = "") -> tuple[list[float], list[Any]]:
    """What ``code`` says of `REPLIES`, and of an outage."""
    given = {"replies": REPLIES, "settings": SETTINGS, "outage": outage, "row": ROW, "folder": str(folder)}
    done = subprocess.run(
        [python, "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def beside(folder: Path, package: str) -> str:
    """A folder with a package whose requirements are those of verl, which does not import it where this is not named."""
    subprocess.run(
        [UV, "pip", "install", "--quiet", "--no-deps", "--target", folder / "packages", package], check=True, timeout=900
    )
    return str(folder / "packages")


TRL = """
import json, math, sys
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from future_l1_verl.toy import tiny_text
from future_l1_verl.rewards.adapters.trl import reward
given = json.load(sys.stdin)
tiny_text.build(given["folder"] + "/model")
args = {"use_cpu": True, "bf16": False, "report_to": [], "num_generations": 2, "per_device_train_batch_size": 2, "max_steps": 1}
config = GRPOConfig(given["folder"], max_completion_length=8, save_strategy="no", **args)
rows = Dataset.from_list([{"prompt": "Where does it hit?", "solution": "B"}])
trainer = GRPOTrainer(given["folder"] + "/model", reward(**given["settings"]), args=config, train_dataset=rows)
trainer.train()
logged = {name for entry in trainer.state.log_history for name in entry}
def by_trl(function, replies, **columns):
    trainer.reward_funcs = [function]
    prompts = ["Where does it hit?"] * len(replies)
    inputs = [{"prompt": prompts[0]} | {name: values[i] for name, values in columns.items()} for i in range(len(replies))]
    return trainer._calculate_rewards(inputs, prompts, replies, [[] for _ in replies])[:, 0].tolist()
columns = {"solution": ["B"] * len(given["replies"]), "options": [given["row"]["options"]] * len(given["replies"])}
found = by_trl(reward(**given["settings"]), given["replies"], **columns)
chats = [[{"role": "assistant", "content": [{"type": "text", "text": reply}]}] for reply in given["replies"]]
assert by_trl(reward(**given["settings"]), chats, **columns) == found
errors = ["rewards/future_l1/mean" in logged]
try:
    errors += by_trl(reward(**given["outage"]), ["B"], solution=["B"])
except Exception as error:
    errors.append(f"{type(error).__name__}: {error}")
errors += [math.isnan(value) for value in by_trl(reward(**given["outage"], no_verdict=None), ["B"], solution=["B"])]
print(json.dumps([found, errors]))
"""


def test_trl(outage: dict[str, Any], tmp_path: Path) -> None:
    found, errors = run(sys.executable, TRL, outage, tmp_path, beside(tmp_path, "trl==1.16.0"))
    assert found == pytest.approx(expected(), abs=1e-6)
    assert errors == [True, "NoVerdict: completion 0: no verdict on 'B'", True]


def test_a_column_or_a_setting_that_trl_users_misspell() -> None:
    with pytest.raises(KeyError, match="no column 'solution'"):
        trl.reward()(["?"], ["B"], ground_truth=["B"])
    with pytest.raises(ValueError, match="unknown keyword 'formatt'; did you mean format"):
        trl.reward(formatt=1.0)


SKYRL = """
import json, sys
from omegaconf import OmegaConf
import skyrl_gym
given = json.load(sys.stdin)
skyrl_gym.register(id="future_l1", entry_point="future_l1_verl.rewards.adapters.skyrl:FutureL1Env")
def stepped(reply, settings):
    extras = {"reward_spec": {"ground_truth": "B"}, "extra_info": dict(given["row"]), "data_source": "sums"}
    env = skyrl_gym.make("future_l1", env_config=OmegaConf.create(settings), extras=extras)
    env.init([{"role": "user", "content": "Where does it hit?"}])
    step = env.step(reply)
    assert step["done"]
    return step["reward"]
found = [stepped(reply, given["settings"]) for reply in given["replies"]]
errors = []
for settings in (given["outage"], {"reason": "think"}):
    try:
        errors.append(stepped("B", settings))
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
print(json.dumps([found, errors]))
"""


def test_skyrl(outage: dict[str, Any], tmp_path: Path) -> None:
    found, errors = run(sys.executable, SKYRL, outage, tmp_path, beside(tmp_path, "skyrl-gym==0.4.0"))
    assert found == pytest.approx(expected())
    assert errors[0] == "NoVerdict: a row of sums: no verdict on 'B'"
    assert errors[1].startswith("ValueError: unknown keyword 'reason'")


RUBRIC = """
import asyncio, json, sys
import verifiers as vf
from future_l1_verl.rewards.adapters.verifiers import reward
given = json.load(sys.stdin)
def state(reply):
    messages = [{"role": "assistant", "content": reply}]
    return vf.State(prompt="?", completion=messages, answer="B", info=given["row"], timing={"scoring_ms": 0, "total_ms": 0})
async def scored(function, replies):
    rubric = vf.Rubric(funcs=[function])
    return [await rubric._call_individual_reward_func(rubric.funcs[0], state(reply)) for reply in replies]
found = asyncio.run(scored(reward(**given["settings"]), given["replies"]))
try:
    failed = asyncio.run(scored(reward(**given["outage"]), ["B"]))
except BaseException as error:
    failed = f"{type(error).__name__}: {error}"
try:
    asyncio.run(scored(reward(**given["outage"], no_verdict=None), ["B"]))
    failed = "None became a score"
except BaseException as error:
    assert type(error).__name__ == "Unscored"
print(json.dumps([found, [failed]]))
"""
TASK = """
import asyncio, json, sys
from types import SimpleNamespace
import verifiers.v1 as vf
from future_l1_verl.rewards.adapters.verifiers import task_reward
given = json.load(sys.stdin)
class Data(vf.TaskData):
    answer: str
    question: str
    options: list[str]
def task(settings):
    class Sums(vf.Task[Data]):
        correct = vf.reward(task_reward(**settings))
    return Sums(Data(answer="B", **given["row"]))
class Trace(SimpleNamespace):
    def record_reward(self, name, value, weight=1.0):
        self.rewards[name] = value * weight
async def scored(settings, replies):
    found = []
    for reply in replies:
        trace = Trace(last_reply=reply, rewards={}, metrics={})
        await task(settings).score(trace)
        found += trace.rewards.values()
    return found
found = asyncio.run(scored(given["settings"], given["replies"]))
try:
    failed = asyncio.run(scored(given["outage"], ["B"]))
except vf.TaskError as error:
    failed = f"{type(error).__name__}: {error}"
print(json.dumps([found, [failed]]))
"""


@pytest.mark.parametrize(
    ("version", "code", "error"),
    [
        ("0.1.14", RUBRIC, "Unscored: NoVerdict: the row: no verdict on 'B'"),
        ("0.4.0", TASK, "TaskError: task Sums scoring: NoVerdict: the row: no verdict on 'B'"),
    ],
)
def test_verifiers(version: str, code: str, error: str, outage: dict[str, Any], tmp_path: Path) -> None:
    """Its requirements do not go with verl's; and rewards need no torch."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    needed = [f"verifiers=={version}", "math-verify"]
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, *needed], check=True, timeout=900)
    found, errors = run(python, code, outage, tmp_path)
    assert found == pytest.approx(expected()) and errors == [error]


# EasyR1 (not on PyPI: its calling code, verl/workers/reward/function.py, hands over these dictionaries)


def test_easyr1(outage: dict[str, Any]) -> None:
    inputs = [{"response": reply, "response_length": len(reply), "ground_truth": "B"} for reply in REPLIES]
    assert [each["overall"] for each in easyr1.compute_score(inputs, **SETTINGS)] == pytest.approx(expected(None))
    one = easyr1.compute_score(inputs[0], **SETTINGS)
    assert one["overall"] == pytest.approx(expected(None)[0]) and {"accuracy", "format"} <= set(one)
    with pytest.raises(ValueError, match="EasyR1 gives no question"):
        easyr1.compute_score(inputs, **outage)


def test_easyr1_loads_it_as_a_file() -> None:
    spec = importlib.util.spec_from_file_location("custom_reward_fn", easyr1.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.compute_score({"response": "7", "ground_truth": "7"})["accuracy"] == 1.0
