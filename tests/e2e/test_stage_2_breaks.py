"""Stage 2 killed, resumed, and robbed of its engine: real processes on the smallest model."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from e2e_environment import ENVIRONMENT

from data_prep.synthetic.writing import Settings, write_set
from future_l1_verl.modeling import tiny

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


class Run:
    """A stage 2 process and its output."""

    def __init__(self, folder: Path, log: Path, *overrides: str) -> None:
        small = [
            "data.train_batch_size=4",
            "data.val_batch_size=4",
            "data.max_prompt_length=512",
            "data.max_response_length=24",
        ]
        actor = [
            "actor.ppo_mini_batch_size=4",
            "actor.ppo_micro_batch_size_per_gpu=8",
            "ref.log_prob_micro_batch_size_per_gpu=8",
        ]
        rollout = [
            "n=2",
            "log_prob_micro_batch_size_per_gpu=8",
            "max_model_len=1024",
            "max_num_seqs=8",
            "max_num_batched_tokens=2048",
        ]
        command = [
            *[sys.executable, "-m", "future_l1_verl.rl", "platform=cpu", f"actor_rollout_ref.model.path={folder}/model"],
            *[f"data.train_files={folder}/data/rl_train.parquet", f"data.val_files={folder}/data/rl_test.parquet"],
            *[*small, "data.system_prompt=null"],
            *[f"actor_rollout_ref.{setting}" for setting in actor],
            *[f"actor_rollout_ref.rollout.{setting}" for setting in rollout],
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

    def wait_for_step(self, step: int, seconds: float = 400) -> None:
        self.wait(lambda: re.search(rf"step:{step} - ", self.log.read_text()) is not None, f"step {step}", seconds)

    def wait(self, condition, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.descendants()
            assert self.process.poll() is None, f"ended before {name}:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"no {name} in {seconds} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.5)

    def descendants(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= {process.pid for process in found}
        return found

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


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_set(tmp_path / "data", Settings(clips=16, test_clips=4, seed=0), lambda items, label: items)
    tiny.build(tmp_path / "model")
    yield tmp_path


def prompts(folder: Path, step: int) -> list[str]:
    return sorted(json.loads(line)["input"] for line in (folder / f"rollouts/{step}.jsonl").read_text().splitlines())


def test_killed_resumed_and_robbed_of_its_engine(folder: Path) -> None:
    # Saved at step 3, killed after step 4 and long before 6: what came after the checkpoint has to come again.
    first = Run(folder, folder / "first.log", "trainer.total_training_steps=100")
    fourth = folder / "rollouts/4.jsonl"
    first.wait(lambda: fourth.exists() and len(fourth.read_text().splitlines()) == 8, "rollouts of step 4", 400)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert (folder / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "3"
    undisturbed = prompts(folder, 4)
    shutil.rmtree(folder / "rollouts")

    second = Run(folder, folder / "second.log", "trainer.total_training_steps=100")
    second.wait_for_step(4)
    steps = [int(step) for step in re.findall(r"step:(\d+) - ", second.log.read_text())]
    assert steps[0] == 4
    assert prompts(folder, 4) == undisturbed

    engine = next(process for process in second.descendants() if "EngineCore" in process.name() + " ".join(process.cmdline()))
    engine.kill()
    second.process.wait(timeout=120)
    assert second.process.returncode != 0
    assert re.search(r"EngineDied|EngineDead|a rollout of prompt .* failed", second.log.read_text())
    assert first.left_behind() == []
    assert second.left_behind() == []
