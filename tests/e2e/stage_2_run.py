"""Stage 2 as a process on the smallest model, its output, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from e2e_environment import ENVIRONMENT, PATIENCE

LEARNS = ("rewards.repetition=1.0", "rewards.repetition_ngram=1")
"""A reward that a random model's answers differ in."""


class Run:
    """A stage 2 process and its output. How micro-batches and the engine are sized is left to the tree."""

    def __init__(self, folder: Path, log: Path, *overrides: str) -> None:
        command = [
            *[sys.executable, "-m", "future_l1_verl.rl", "platform=cpu", f"actor_rollout_ref.model.path={folder}/model"],
            *[f"data.train_files={folder}/data/train.parquet", f"data.val_files={folder}/data/val.parquet"],
            *["data.train_batch_size=4", "data.max_prompt_length=512", "data.max_response_length=24"],
            *["data.system_prompt=null", "actor_rollout_ref.actor.ppo_mini_batch_size=4", "actor_rollout_ref.rollout.n=2"],
            "algorithm.filter_groups.enable=false",  # a random model answers nothing right
            *["trainer.val_before_train=false", "trainer.logger=[console]", f"trainer.rollout_data_dir={folder}/rollouts"],
            *[f"trainer.default_local_dir={folder}/checkpoints", "trainer.total_epochs=1000", "trainer.save_freq=3"],
            *overrides,
        ]
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT, cwd=folder, start_new_session=True
            )
        self.seen: set[int] = set()

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: re.search(rf"step:{step} - ", self.log.read_text()) is not None, f"step {step}")

    def wait(self, condition: Callable[[], bool], name: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.descendants()
            assert self.process.poll() is None, f"ended before {name}:\n{self.log.read_text()[-4000:]}"
            if time.monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise AssertionError(f"no {name} in {seconds} s:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.5)

    def ends(self) -> int:
        """Waits for the end of the process, and returns what it exits with."""
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def descendants(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= {process.pid for process in found}
        return found

    def part(self, name: str) -> psutil.Process:
        """The process whose title has ``name`` in it, as Ray's ``ray::WorkerDict``."""
        return next(process for process in self.descendants() if name in process.name() + " ".join(process.cmdline()))

    def engine(self) -> psutil.Process:
        """The process of the rollout engine."""
        return self.part("EngineCore")

    def metrics(self) -> dict[int, dict[str, float]]:
        """What was logged, by step. What another process writes into the same line is left out."""
        return {
            int(step): {
                name: float(value) for name, value in re.findall(r" - ([\w/]+):(-?[\d.]+(?:e-?\d+)?|nan)(?![\w.])", line)
            }
            for step, line in re.findall(r"step:(\d+)( - .*)", self.log.read_text())
        }

    def left_behind(self, seconds: float = 60) -> list[str]:
        """Names of processes of this run that live on after it."""
        deadline = time.monotonic() + seconds
        while alive := [pid for pid in self.seen if psutil.pid_exists(pid) and is_running(pid)]:
            if time.monotonic() > deadline:
                return [" ".join(psutil.Process(pid).cmdline())[:80] for pid in alive]
            time.sleep(1)
        return []


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_parity(metrics: dict[str, float]) -> None:
    """The weights that wrote a token say of it what the rollout said."""
    assert metrics["parity/entries"] > 0
    assert metrics["parity/text_gap_max"] < 1e-5 and metrics["parity/decision_gap_max"] < 1e-5


def assert_other_weights_say_otherwise(steps: dict[int, dict[str, float]]) -> None:
    """The control: without regard to who wrote a token, the same comparison is far off."""
    assert max(metrics["off_policy/text_gap_mean"] for metrics in steps.values()) > 1e-2
