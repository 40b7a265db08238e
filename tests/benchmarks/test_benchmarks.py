"""The benchmarks in their smallest form: that both sides do the same work, and latents are part of it. No times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("parity", "rollout", "decode_vs_hf", "actor_step", "transport", "machine", "rl_step")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script for a GPU measures in its form for a CPU."""
    out = tmp_path_factory.mktemp("benchmarks")
    command = ["bash", str(ROOT / "benchmarks/gpu/run.sh"), "--cpu", "--out", str(out)]
    subprocess.run(command, check=True, timeout=800)
    return {name: json.loads((out / f"{name}.json").read_text()) for name in NAMES}


def test_rollout_and_actor_agree(measured: dict[str, Any]) -> None:
    found = measured["parity"]
    assert found["text_tokens"] > 0 and found["latents"] > 0
    assert found["text_gap_max"] < 1e-4 and found["latent_gap_mean"] < 1e-4


def test_both_engines_write_as_much(measured: dict[str, Any]) -> None:
    (row,) = measured["rollout"]["rows"]  # a CPU has neither CUDA graphs nor async scheduling
    assert row["tokens"] == {"latent": 2 * 2 * 24, "text": 2 * 2 * 24}
    assert row["latent_share"] > 0.1


def test_all_decoders_write_the_same(measured: dict[str, Any]) -> None:
    found = measured["decode_vs_hf"]
    assert found["latent_share"] > 0.1
    assert found["answers"] == {"vLLM": 4, "cached, one batch": 4, "cached, one at a time": 1, "oracle": 1}
    assert set(found["different_answers"].values()) == {0}


def test_steps_are_of_equally_many_tokens(measured: dict[str, Any]) -> None:
    found = measured["actor_step"]
    assert found["tokens"].keys() == {"vmf", "gaussian", "none", "text"} and len(set(found["tokens"].values())) == 1
    assert found["latent_share"] > 0.1


def test_every_hop_carries_whole_latents(measured: dict[str, Any]) -> None:
    found = measured["transport"]
    assert found["copies_to_host"] == found["engine_steps"] == 2
    assert all(hop["bytes_per_latent"] >= 4 * 128 for hop in found["hops"].values())


def test_steps_of_stage_2_are_taken_and_timed_by_phase(measured: dict[str, Any]) -> None:
    step = measured["rl_step"]["stage_2"]
    assert step["steps"] == 3  # of four: the first waits for compilers
    assert all(step[phase] > 0 for phase in ("rollout", "old log-probs", "reference", "update of the actor"))
    assert step["other"] >= 0
