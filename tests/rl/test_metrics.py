import pytest
import torch

from future_l1_verl.latents.spans import Role
from future_l1_verl.rl.metrics import parity, rollout_metrics


def test_parity_looks_at_text_and_stops_alone() -> None:
    roles = torch.tensor([[Role.TEXT, Role.LATENT_FORCED, Role.LATENT, Role.STOP, Role.STOP_FORCED, Role.TEXT]])
    present = torch.tensor([[True, True, True, True, True, False]])
    rollout = torch.tensor([[-1.0, -5.0, -5.0, -2.0, -5.0, -9.0]])
    actor = torch.tensor([[-1.5, 0.0, 0.0, -2.25, 0.0, 0.0]])
    # |-1 + 1.5| = 0.5 and |-2 + 2.25| = 0.25; the other entries are latents, forced or padding.
    assert parity(rollout, actor, roles, present) == {
        "parity/text_gap_max": 0.5,
        "parity/text_gap_mean": 0.375,
        "parity/entries": 2.0,
    }


def info(**changed: float) -> dict[str, float]:
    return {
        "acc": 1.0, "format": 0.0, "contrastive": 0.5, "diversity": 0.0, "contrastive_defined": 1.0,
        "diversity_defined": 0.0, "parsed": 1.0, "spans": 2.0, "latents": 6.0, "budget_ends": 1.0,
    } | changed  # fmt: skip


def test_rollout_metrics_are_means_over_rollouts() -> None:
    silent = info(acc=0.0, contrastive_defined=0.0, spans=0.0, latents=0.0, budget_ends=0.0, parsed=0.0)
    metrics = rollout_metrics([info(), info(), silent, info()])
    assert metrics["rewards/acc/mean"] == 0.75
    assert metrics["rewards/acc/std"] == pytest.approx((0.75 * 0.25) ** 0.5)
    assert metrics["rewards/contrastive/undefined"] == 0.25
    assert metrics["latents/with_span"] == 0.75
    assert metrics["latents/latents_per_answer"] == 4.5
    assert metrics["latents/budget_end_share"] == 0.5  # 3 budget ends in 6 spans


def test_a_step_without_any_span_divides_by_nothing() -> None:
    metrics = rollout_metrics([info(spans=0.0, latents=0.0, budget_ends=0.0)])
    assert metrics["latents/budget_end_share"] == 0.0
