"""Four steps of stage 2 on one device, tensor parallel 1: seconds of each phase of a step, and parity of rollout and actor.

A random model answers nothing right: no group is dropped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from checkpoint import checkpoint
from record import Form, Record, run
from rl_step import phases

from future_l1_verl.evaluation.curves import read_curves

STEPS = 4
PROMPT = 512


def measure(record: Record, form: Form) -> None:
    record.cell("steps", lambda: _steps(form))


def _steps(form: Form) -> dict[str, Any]:
    """Raises CalledProcessError if the run fails."""
    path = checkpoint("tiny" if form.cpu else "2b", form.folder)
    data, out = form.folder / "data", form.folder / "stage_2"
    for earlier in (data, out):  # of a run that did not get through
        shutil.rmtree(earlier, ignore_errors=True)
    clips = ["--out", str(data), "--train-questions", "32", "--val-questions", "2", "--test-questions", "2", "--seed", "0"]
    subprocess.run([sys.executable, "-m", "data_prep.toy.synthetic", *clips], check=True)
    command = [sys.executable, "-m", "future_l1_verl.rl", *settings(path, data, out, form.cpu)]
    # verl's tracker takes its folder from here alone.
    subprocess.run(command, check=True, env=os.environ | {"TENSORBOARD_DIR": str(out / "tensorboard")})
    curves = {name: dict(points) for name, points in read_curves(out / "tensorboard").items()}
    parity = {name: list(points.values()) for name, points in curves.items() if name.startswith("parity/")}
    return {"phases": phases(out / "tensorboard"), "parity": parity}


def settings(path: Path, data: Path, out: Path, cpu: bool) -> list[str]:
    batch, n, response, at_once = (4, 2, 24, 8) if cpu else (16, 8, 256, 128)
    tokens = PROMPT + response
    model, actor, rollout = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "rollout"))
    attention = "flash_attention_2" if not cpu and find_spec("flash_attn") else "sdpa"
    return [
        f"platform={'cpu' if cpu else 'cuda'}", f"{model}.path={path}",
        f"{model}.override_config.attn_implementation={attention}",
        f"data.train_files={data / 'train.parquet'}", f"data.val_files={data / 'val.parquet'}",
        f"data.train_batch_size={batch}", f"data.max_prompt_length={PROMPT}", f"data.max_response_length={response}",
        "data.system_prompt=null", "algorithm.filter_groups.enable=false",
        f"{actor}.ppo_mini_batch_size={batch}", f"{actor}.use_dynamic_bsz=true",
        f"{actor}.ppo_max_token_len_per_gpu={8 * tokens}", f"{actor}.fsdp_config.param_offload=true",
        f"{actor}.fsdp_config.optimizer_offload=true",
        f"actor_rollout_ref.ref.log_prob_max_token_len_per_gpu={16 * tokens}",
        f"{rollout}.log_prob_max_token_len_per_gpu={16 * tokens}", f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.n={n}", f"{rollout}.max_model_len={tokens}", f"{rollout}.max_num_seqs={at_once}",
        f"{rollout}.max_num_batched_tokens={8 * tokens}", f"{rollout}.gpu_memory_utilization=0.4",
        "trainer.n_gpus_per_node=1", "trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1",
        f"trainer.total_training_steps={STEPS}", f"trainer.default_local_dir={out}",
    ]  # fmt: skip


if __name__ == "__main__":
    run(measure)
