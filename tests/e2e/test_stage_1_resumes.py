"""Stage 1 goes on after a stop as if there had been none: the real trainer, loader and checkpoints."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from e2e_environment import ENVIRONMENT, finished
from safetensors.torch import load_file

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.e2e


def train(folder: Path, run: Path) -> str:
    command = [
        *[sys.executable, "-m", "future_l1_verl.sft", "platform=cpu", f"model.path={folder}/model", "data.system_prompt=null"],
        *[f"data.train_files={folder}/data/train.parquet", f"data.val_files={folder}/data/val.parquet"],
        *["data.train_batch_size=4", "data.micro_batch_size_per_gpu=4", "data.use_dynamic_bsz=false", "data.num_workers=1"],
        *["optim.lr=1e-3", "trainer.logger=[console]", "trainer.total_epochs=100", "trainer.total_training_steps=6"],
        *["trainer.save_freq=3", "trainer.test_freq=3", f"trainer.default_local_dir={run}", "data.max_length=1024"],
    ]
    result = finished(command, env=os.environ | ENVIRONMENT, cwd=folder)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def weights(run: Path) -> dict:
    return load_file(run / "global_step_6/huggingface/model.safetensors")


def test_a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    write_set(tmp_path / "data", Settings(train_questions=6, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(tmp_path / "model")
    said = train(tmp_path, tmp_path / "whole")
    assert "val/latent_retrieval" in said and "step:1 - " in said
    assert "before training: root mean square" in said
    losses = {int(step): float(loss) for step, loss in re.findall(r"step:(\d+) - val/loss:([\d.e+-]+)", said)}
    kept = json.loads((tmp_path / "whole/best/step.json").read_text())
    best = min(losses, key=losses.get)
    assert kept["step"] == best and kept["val/loss"] == pytest.approx(losses[best])
    assert load_file(tmp_path / "whole/best/huggingface/model.safetensors").keys() == weights(tmp_path / "whole").keys()

    # What a run that was stopped after step 3 leaves.
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole/global_step_3", stopped / "global_step_3")
    (stopped / "latest_checkpointed_iteration.txt").write_text("3")
    said = train(tmp_path, stopped)
    assert "step:3 - train" not in said and "step:4 - " in said
    ours, theirs = weights(stopped), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    before = load_file(tmp_path / "whole/global_step_3/huggingface/model.safetensors")
    assert any((before[name] != theirs[name]).any() for name in theirs)
