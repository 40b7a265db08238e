"""Curation on the synthetic set with the tiny model: the recipe, what it selects, and that stage 1 takes what it builds."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from e2e_environment import recipe

from data_prep.curation import scores

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def curated(stage_1: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    result = recipe("curate_synthetic.sh", "--run", str(stage_1))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    return stage_1 / "curated", result


def test_selected_candidates_gain_more_than_random_ones_on_fresh_rollouts(curated: tuple[Path, object]) -> None:
    folder, _ = curated
    found = json.loads((folder / "recheck.json").read_text())
    assert found["difference"]["interval"][0] > 0
    # Regression to the mean: what was selected by a gain has less of it when looked at again.
    assert found["selected"]["now"] < found["selected"]["chosen"]


def test_the_two_scorings_have_no_text_in_common_by_seed(curated: tuple[Path, object]) -> None:
    folder, _ = curated
    seeds = [
        {rollout["seed"] for row in scores.read(folder / name).to_pylist() for c in scores.CONDITIONS for rollout in row[c]}
        for name in ("scored", "scored-again")
    ]
    assert len(seeds[0]) == len(seeds[1]) == 16 * pq.ParquetFile(folder / "candidates.parquet").metadata.num_rows
    assert len(seeds[0] & seeds[1]) < 100


def test_stage_1_takes_what_was_built(curated: tuple[Path, object], stage_1: Path, tmp_path: Path) -> None:
    folder, _ = curated
    data, out = folder / "data/sft_train.parquet", tmp_path / "sft"
    files = ["--model", str(stage_1 / "tiny"), "--data", str(data), "--out", str(out)]
    small = ["data.train_batch_size=8", "data.max_length=1024", "data.max_token_len_per_gpu=4096", "data.system_prompt=null"]
    result = recipe(
        "sft_qwen3vl8b.sh", *files, "platform=cpu", "trainer.n_gpus_per_node=1", "trainer.total_training_steps=2", *small
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "sft/global_step_2/huggingface").is_dir()
    assert not (tmp_path / "sft/skipped_rows.jsonl").exists()
