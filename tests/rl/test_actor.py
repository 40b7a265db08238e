"""The real actor on recorded rollouts: one loss, however a batch is cut, and every ablation of the paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
from actor_harness import run_ranks
from actor_ranks import ABLATIONS

from future_l1_verl.modeling import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("actor")
    tiny.build(out / "tiny", seed=1)
    return out


def largest_gap(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["metrics"]["loss"] == pytest.approx(theirs["metrics"]["loss"], abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in theirs["gradients"].values()) > 1e-2
    assert largest_gap(ours["gradients"], theirs["gradients"]) <= 1e-6


def test_padded_packed_and_micro_batched_are_one_loss(folder: Path) -> None:
    """reference-audit.md, row 14. The batch holds every role, an image and text alone, and rows of different lengths."""
    found = run_ranks("shapes", 1, folder, str(folder / "tiny"))[0]
    for name in ("packed", "padded micro-batches", "packed micro-batches"):
        assert_same(found[name], found["padded"])
    for name in ("text", "latent"):
        key = f"actor/{name}/entries"
        assert {shape["metrics"][key] for shape in found.values()} == {found["padded"]["metrics"][key]}


def test_two_ranks_are_one(folder: Path) -> None:
    one = run_ranks("data_parallel", 1, folder, str(folder / "tiny"))[0]
    for rank in run_ranks("data_parallel", 2, folder, str(folder / "tiny")):
        assert largest_gap(rank["gradients"], one["gradients"]) <= 1e-6
