"""The disk of the checkpoints becomes full while one is written. Needs the right to mount a file system in memory."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from outcome import Outcome
from training import Training

DONE = "the disk becomes full at a random byte of a checkpoint of stage 2; room is made and the same command given again"
UNIT = "questions of epochs begun"
ROOM, CHECKPOINT = 80 << 20, 19 << 20  # bytes of the disk, and of a checkpoint of the tiny model


@contextmanager
def prepared(work: Path) -> Iterator[Callable[[int], Outcome]]:
    checkpoints = work / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(checkpoints)], check=True)
    # One stays, as for the owner of a small disk; while the next is written there are two.
    training = Training(work, "global_step_.* could not be written, .* MiB are free there", "trainer.max_actor_ckpt_to_keep=1")
    try:
        yield lambda number: filled(training, checkpoints)
    finally:
        training.end()
        subprocess.run(["umount", str(checkpoints)], check=True)


def filled(training: Training, checkpoints: Path) -> Outcome:
    run, filler = training.run, checkpoints / "filler"
    run.wait(lambda: len(run.metrics()) >= 4, "four steps", 500)
    # From the moment when one checkpoint is there, and no second in the making, the next one does not fit.
    while len(list(checkpoints.glob("global_step_*"))) > 1:
        time.sleep(0.02)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(checkpoints) - random.randrange(CHECKPOINT))
    named = training.saved()
    while not (checkpoints / f"global_step_{named + 3}").exists():
        time.sleep(0.02)
    return training.resumed(time.monotonic(), filler.unlink)


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
