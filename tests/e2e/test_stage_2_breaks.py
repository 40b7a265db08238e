"""Stage 2 killed, resumed, and robbed of its engine: real processes on the smallest model, in an ablation without latents."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage_2_run import LEARNS, Run

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_set(tmp_path / "data", Settings(train_questions=8, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(tmp_path / "model")
    yield tmp_path


def prompts(folder: Path, step: int) -> list[str]:
    return sorted(json.loads(line)["input"] for line in (folder / f"rollouts/{step}.jsonl").read_text().splitlines())


def test_killed_resumed_and_robbed_of_its_engine(folder: Path) -> None:
    # Saved at step 3, killed after step 4 and long before 6: what came after the checkpoint has to come again.
    settings = ["ablation=text_only_dapo", *LEARNS, "trainer.total_training_steps=100"]
    first = Run(folder, folder / "first.log", *settings)
    fourth = folder / "rollouts/4.jsonl"
    first.wait(lambda: fourth.exists() and len(fourth.read_text().splitlines()) == 8, "rollouts of step 4")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert (folder / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "3"
    undisturbed = prompts(folder, 4)
    shutil.rmtree(folder / "rollouts")

    second = Run(folder, folder / "second.log", *settings)
    second.wait_for_step(4)
    assert min(second.metrics()) == 4
    assert prompts(folder, 4) == undisturbed

    for metrics in (first.metrics() | second.metrics()).values():
        assert metrics["parity/text_gap_max"] < 1e-5 and metrics["actor/latent/entries"] == 0
    assert first.metrics()[1]["actor/text/ref_kl"] == 0 and second.metrics()[4]["actor/text/ref_kl"] > 0

    second.engine().kill()
    assert second.ends() != 0
    assert re.search(r"EngineDied|EngineDead|a rollout of prompt .* failed", second.log.read_text())
    assert first.left_behind() == []
    assert second.left_behind() == []
