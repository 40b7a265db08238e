"""SIGKILL while a checkpoint is exported, with LoRA to merge or without, or prepared."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from outcome import Outcome
from peft import LoraConfig, get_peft_model
from test_export import split
from test_prepare import original
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from future_l1_verl.cli import main
from future_l1_verl.toy import tiny

DONE = (
    "SIGKILL at a random moment while `future-l1 export` (with LoRA, without) or `future-l1 prepare` writes; the command again"
)
UNIT = "files of checkpoints and their sources"
SHARDS = 4
FORK = multiprocessing.get_context("fork")  # a command of its own would spend its time on imports


@dataclass(frozen=True)
class Command:
    """A command with its arguments, which reads the folder ``source`` and writes ``out``."""

    name: str
    arguments: list[str]
    source: Path
    out: Path

    def started(self) -> multiprocessing.Process:
        process = FORK.Process(target=self._call)
        process.start()
        return process

    def _call(self) -> None:
        sys.exit(main([self.name, *self.arguments, "--out", str(self.out)]))

    def partial(self) -> Path:
        return self.out.with_name(self.out.name + ".partial")


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def with_lora(model: Path, out: Path) -> None:
    """Writes what verl leaves of a training of adapters."""
    from verl.trainer.config import CheckpointConfig
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    torch.distributed.init_process_group("gloo", init_method=f"file://{out.parent}/rendezvous", rank=0, world_size=1)
    adapters = LoraConfig(r=4, lora_alpha=10, target_modules="all-linear", exclude_modules=".*visual.*", task_type="CAUSAL_LM")
    trained = get_peft_model(AutoModelForImageTextToText.from_pretrained(model), adapters)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    settings = CheckpointConfig(save_contents=["model", "hf_model"])
    manager = FSDPCheckpointManager(trained, processing_class=AutoProcessor.from_pretrained(model), checkpoint_config=settings)
    manager.save_checkpoint(str(out), global_step=1)
    torch.distributed.destroy_process_group()


def commands(work: Path) -> list[Command]:
    tiny.build(work / "tiny")
    shutil.copytree(work / "tiny", work / "plain/global_step_1/huggingface")
    (work / "lora").mkdir()
    process = FORK.Process(target=with_lora, args=(work / "tiny", work / "lora/global_step_1"))
    process.start()
    process.join()
    original(work / "original", rows=70, tied=False)
    for run in ("plain", "lora"):
        split(work / run / "global_step_1/huggingface", SHARDS)
    exports = [
        Command("export", ["--run", str(work / run), "--step", "1"], work / run / "global_step_1", work / f"{run}-out")
        for run in ("plain", "lora")
    ]
    return [*exports, Command("prepare", ["--model", str(work / "original")], work / "original", work / "original-out")]


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    torch.set_num_threads(1)  # threads do not live on in a forked process
    for left in work.iterdir():
        shutil.rmtree(left)
    cases = []
    for command in commands(work):
        source = digests(command.source)
        process, since = command.started(), begun(command)
        while command.partial().exists():
            time.sleep(0.001)
        seconds = time.monotonic() - since
        process.join()
        assert process.exitcode == 0
        cases.append((command, source, digests(command.out), seconds))
        shutil.rmtree(command.out)
    yield lambda number: killed(*cases[number % len(cases)])


def begun(command: Command) -> float:
    """Waits until the command writes; returns the time."""
    while not command.partial().exists():
        time.sleep(0.001)
    return time.monotonic()


def killed(command: Command, source: dict[str, str], expected: dict[str, str], seconds: float) -> Outcome:
    """Kills a command and gives it again. Undisturbed it takes ``seconds`` to write files with the digests ``expected``."""
    process, since = command.started(), begun(command)
    time.sleep(random.uniform(0, seconds))
    process.kill()
    process.join()
    there = digests(command.out) if command.out.exists() else {}
    again = command.started()
    again.join()
    found = digests(command.out)
    shutil.rmtree(command.out)
    lost = len(expected.keys() - found.keys())
    wrong = sum(found[name] != digest for name, digest in expected.items() if name in found)
    wrong += digests(command.source) != source or again.exitcode != (2 if there else 0)
    if there:
        after = "it was whole already" if there == expected else "half a checkpoint was there"
    else:
        after = "nothing was there, the command again wrote it"
    return Outcome(len(expected) + len(source), lost, wrong, time.monotonic() - since, after)
