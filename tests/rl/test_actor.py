"""The real actor on recorded rollouts: one loss, however a batch is cut, and every ablation of the paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
from actor_harness import run_ranks
from actor_ranks import ABLATIONS

from future_l1_verl.toy import tiny

pytestmark = pytest.mark.engine

KINDS = ("language", "vision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("actor")
    tiny.build(out / "tiny", seed=1)
    return out


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """Returns the results of a single rank, by function."""
    return run_ranks("alone", 1, folder, str(folder / "tiny"), timeout=1700)[0]


def largest_gap(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["metrics"]["loss"] == pytest.approx(theirs["metrics"]["loss"], abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in theirs["gradients"].values()) > 1e-2
    assert largest_gap(ours["gradients"], theirs["gradients"]) <= 1e-6


def test_one_loss_however_a_batch_is_cut(alone: dict[str, Any]) -> None:
    """The batch holds every role, an image and text alone, and rows of different lengths; a budget may divide a question."""
    found = alone["shapes"]
    assert [step["micro_batches"] for step in found.values()] == [1, 4, 2, 4]
    for name, step in found.items():
        assert_same(step, found["whole"])
        for part in ("text", "latent"):
            key = f"actor/{part}/entries"
            assert step["metrics"][key] == found["whole"]["metrics"][key], name


def test_two_ranks_are_one(alone: dict[str, Any], folder: Path) -> None:
    """With Ulysses each rank holds half of every sequence. Its collectives on a CPU: ulysses_on_cpu.py."""
    for rank in run_ranks("parallel", 2, folder, str(folder / "tiny")):
        for function, found in rank.items():
            assert largest_gap(found["gradients"], alone[function]["gradients"]) <= 1e-6, function


def assert_exact(found: dict[str, dict[str, float]]) -> None:
    """A question and its rows have the same numbers, and answers that saw their siblings would have others."""
    for variant, distances in found.items():
        # A density is of a cosine, whose rounding is as large where the cosine is near 0.
        for name, bound in (("log_probs", 1e-6), ("density", 1e-5), ("gradient", 1e-6)):
            mixed = distances[f"{name}, mixed up"]
            assert distances[name] <= bound, (variant, distances)
            # Texts alone have no densities, and without a likelihood they are 0 either way.
            assert mixed >= 100 * max(distances[name], bound) or (name == "density" and mixed == 0), (variant, distances)


def test_a_question_has_the_log_probs_and_gradients_of_its_rows(alone: dict[str, Any]) -> None:
    assert_exact(alone["together_and_apart"])


def test_so_it_has_in_the_loss_of_every_ablation(alone: dict[str, Any]) -> None:
    found = alone["each_ablation_together_and_apart"]
    assert found.keys() == set(ABLATIONS)
    assert_exact(found)


def test_an_update_that_is_alone_needs_no_pass_before_it(alone: dict[str, Any]) -> None:
    for ablation, found in alone["one_update"].items():
        before, own = found["pass before"], found["own"]
        assert_same(own, before)
        metrics = own["metrics"]
        # Parity is measured in it, at what these weights wrote: the gap that was put in is 0.25, at the first of six answers.
        assert metrics["parity/text_gap_max"] == pytest.approx(0.25, abs=1e-5), ablation
        assert metrics["parity/text_gap_sum"] == pytest.approx(6 * 0.25, abs=1e-4)
        # All eight answers' second tokens are three versions old.
        assert metrics["stale/text_gap_sum"] == pytest.approx(8 * 0.5, abs=1e-4) and metrics["stale/entries"] == 8
        assert "parity/entries" not in before["metrics"]


def test_every_ablation_takes_two_steps_on_recorded_rollouts(alone: dict[str, Any]) -> None:
    ablations = alone["ablations"]
    # Each has its own rewards, clip range or likelihood: no two second steps are the same.
    losses = {name: round(found["steps"][1]["loss"], 7) for name, found in ablations.items()}
    assert len(set(losses.values())) == len(ABLATIONS), losses
    for name, found in ablations.items():
        first, second = found["steps"]
        text_only = name.startswith("text_only")
        parts = ("text",) if text_only else ("text", "latent")
        assert (first["actor/latent/entries"] == 0) == text_only, name
        for part in parts:
            ratio = [step[f"actor/{part}/ratio_sum"] / step[f"actor/{part}/entries"] for step in (first, second)]
            # The first update is on-policy; after it the ratios move.
            assert ratio[0] == pytest.approx(1.0, abs=1e-5) and ratio[1] != pytest.approx(1.0, abs=1e-5), name
            assert first[f"actor/{part}/old_kl_sum"] == pytest.approx(0.0, abs=1e-4), name
        # The reference has the first step's weights, so the KL to it starts at 0 and grows.
        assert first["actor/text/ref_kl_sum"] == pytest.approx(0.0, abs=1e-4) and second["actor/text/ref_kl_sum"] > 1e-3
        assert ("actor/latent/ref_kl_sum" in first) == (name == "depo")
        moved = {kind: max(v for key, v in found["moved"].items() if ("visual" in key) == (kind == "vision")) for kind in KINDS}
        assert moved["vision"] == 0.0 and moved["language"] > 1e-4, name


@pytest.mark.parametrize(("rewarded", "sign"), [("longer", 1.0), ("shorter", -1.0)])
def test_p_end_follows_a_reward_on_the_length_of_spans(rewarded: str, sign: float, alone: dict[str, Any]) -> None:
    """docs/differences.md, row 3: there the decision's log-prob is overwritten, and length gets no gradient."""
    moved = alone[rewarded]
    assert sign * moved["log(1 - p(end))"] > 0 > sign * moved["log p(end)"]


def test_the_hidden_state_moves_toward_rewarded_latents(alone: dict[str, Any]) -> None:
    moved = alone["latent_bandit"]
    assert moved["rewarded"] > 0.01 and moved["punished"] < -0.01
