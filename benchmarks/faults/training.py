"""Stage 2 on the tiny model, to which a fault is done again and again, and what is lost of its questions."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from outcome import Outcome
from stage_2_run import Run

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.toy import tiny

BATCH, EPOCH = 4, 9  # questions of a step, steps of an epoch
QUESTIONS = BATCH * EPOCH
PATIENCE = 150  # seconds until a run that has not ended counts as hung
Once = Callable[[int], Outcome]


@contextmanager
def killing(work: Path, part: str, reason: str) -> Iterator[Once]:
    """Gives a function that kills a process of a run, whose title has ``part`` in it; ``reason`` is for `Training`."""
    training = Training(work, reason)
    try:
        yield lambda number: training.disturbed(lambda run: run.part(part).kill())
    finally:
        training.end()


class Training:
    """A run that is started by the same command after each fault, in one folder.

    ``reason`` is a pattern of what its last error has to say; it is looked for behind the name of an exception with which a
    line begins: those of the driver do, those of its workers have their names before them.
    """

    def __init__(self, folder: Path, reason: str, *overrides: str) -> None:
        self.folder, self.overrides = folder, overrides
        self.reason = re.compile(rf"^[\w.]+(?:Error|Died)\b(?=.*?(?:{reason})).*", re.MULTILINE | re.DOTALL)
        self.starts = len(list(folder.glob("[0-9]*.log")))
        if not (folder / "model").exists():
            write_set(
                folder / "data",
                Settings(train_questions=QUESTIONS // 4, val_questions=2, test_questions=2),
                lambda items, label: items,
            )
            rows = pd.read_parquet(folder / "data/train.parquet").head(QUESTIONS)
            for number, (human, _) in enumerate(rows["conversations"]):
                human["value"] = f"{number}. {human['value']}"
            rows.to_parquet(folder / "data/train.parquet")
            tiny.build(folder / "model")
        self.run = self._started()

    def _started(self) -> Run:
        self.starts += 1
        log = self.folder / f"{self.starts}.log"
        return Run(self.folder, log, "trainer.total_training_steps=100000", *self.overrides)

    def disturbed(self, fault: Callable[[Run], None], mend: Callable[[], None] = lambda: None) -> Outcome:
        """Does ``fault`` at a random moment, waits for the end, calls ``mend``, starts the run again, and counts which of the
        questions of the epochs begun are trained on."""
        run = self.run
        run.wait(lambda: len(run.metrics()) >= 4, "four steps", 500)  # a checkpoint is written after every third
        # Three steps and a checkpoint take about as long.
        end = time.monotonic() + random.uniform(0, 5)
        run.wait(lambda: time.monotonic() > end, "the fault", 60)
        fault(run)
        return self.resumed(time.monotonic(), mend)

    def resumed(self, since: float, mend: Callable[[], None] = lambda: None) -> Outcome:
        """Waits for the end of the run, whose fault was at ``since``, calls ``mend``, and starts it again."""
        run = self.run
        after, seconds = ended(run, since, self.reason)
        mend()
        saved = self.saved()
        reached = max(saved, *run.metrics())
        for number in range(saved + 1, reached + 2):
            (self.folder / f"rollouts/{number}.jsonl").unlink(missing_ok=True)
        self.run = self._started()
        first, last = saved // EPOCH * EPOCH + 1, (reached // EPOCH + 1) * EPOCH
        self.run.wait(lambda: len(self._trained_on(last)) == BATCH, f"step {last}", 500)
        began = min(self.run.metrics())
        epochs = range(first, last + 1, EPOCH)
        found = [set().union(*(self._trained_on(step) for step in range(epoch, epoch + EPOCH))) for epoch in epochs]
        # verl saves a step before it logs it.
        unlogged = [step for step in range(first, saved + 1) if not self._trained_on(step)]
        lost = sum(QUESTIONS - len(questions) for questions in found) - BATCH * len(unlogged)
        if unlogged:
            after += ", a saved step not logged"
        if began != saved + 1:
            after += f", went on from step {began - 1} instead of {saved}"
        return Outcome(QUESTIONS * len(epochs), lost, 0, seconds, after)

    def saved(self) -> int:
        """The step of the last checkpoint."""
        return int((self.folder / "checkpoints/latest_checkpointed_iteration.txt").read_text())

    def _trained_on(self, step: int) -> set[int]:
        """Numbers of the questions of a step; none until it is over."""
        path = self.folder / f"rollouts/{step}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) < 2 * BATCH:
            return set()
        return {int(re.search(r"(\d+)\. ", json.loads(line)["input"]).group(1)) for line in lines}

    def end(self) -> None:
        self.run.process.kill()
        self.run.process.wait()
        self.run.left_behind()


def ended(run: Run, since: float, reason: re.Pattern[str]) -> tuple[str, float]:
    """How the run ended after a fault, and after how many seconds. One that hangs is killed."""
    try:
        while run.process.poll() is None and time.monotonic() < since + PATIENCE:
            run.descendants()
            time.sleep(0.2)
    finally:
        seconds = time.monotonic() - since
        hung = run.process.poll() is None
        if hung:
            run.process.kill()
            run.process.wait()
    if hung:
        after = "hung"
    elif run.process.returncode == 0 or not reason.search(run.log.read_text()):
        after = "ended without a reason"
    else:
        after = "ended with its reason"
    if left := run.left_behind():
        after += f", {len(left)} processes left behind"
    return after, seconds
