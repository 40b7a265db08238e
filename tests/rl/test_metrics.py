import math

import pytest
import torch
from verl.trainer.ppo.metric_utils import process_validation_metrics

from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.latent import ContrastiveCase
from future_l1_verl.rewards.total import Rollout, group_rewards
from future_l1_verl.rewards.weights import Weights
from future_l1_verl.rl.metrics import (
    divide_parity_sums,
    divide_ratio_sums,
    judged_rows,
    off_policy_metrics,
    reward_metrics,
    span_usage,
    token_versions,
    usage_metrics,
)
from future_l1_verl.rl.parity import parity, sums


def test_parity_looks_at_text_stops_and_decisions() -> None:
    roles = torch.tensor([[Role.TEXT, Role.LATENT_FORCED, Role.LATENT, Role.STOP, Role.STOP_FORCED, Role.TEXT]])
    present = torch.tensor([[True, True, True, True, True, False]])
    rollout = torch.tensor([[-1.0, -5.0, -0.75, -2.0, -5.0, -9.0]])
    actor = torch.tensor([[-1.5, 0.0, 0.0, -2.25, 0.0, 0.0]])
    # |-1 + 1.5| = 0.5 and |-2 + 2.25| = 0.25 for tokens, 0.75 for the decision; the others are forced or padding.
    assert parity(sums(rollout, actor, roles, present)) == {
        "parity/text_gap_max": 0.5,
        "parity/text_gap_mean": 0.375,
        "parity/entries": 2.0,
        "parity/decision_gap_max": 0.75,
    }


def test_an_update_brings_parity_of_its_own_tokens_and_the_gap_of_stale_ones() -> None:
    sums_of = {"entries": 4.0, "text_gap_sum": 1.0, "text_gap_max": 0.5, "decision_gap_max": 0.25}
    stale = sums_of | {"entries": 2.0, "text_gap_sum": 3.0}
    brought = {f"actor/parity/{key}": value for key, value in sums_of.items()}
    brought |= {f"actor/stale/{key}": value for key, value in stale.items()} | {"actor/loss": 7.0}
    assert divide_parity_sums(brought) == {
        "parity/text_gap_max": 0.5, "parity/text_gap_mean": 0.25, "parity/entries": 4.0, "parity/decision_gap_max": 0.25,
        "off_policy/text_gap_mean": 1.5, "actor/loss": 7.0,
    }  # fmt: skip
    assert divide_parity_sums({"actor/loss": 7.0}) == {"actor/loss": 7.0}


def test_parity_without_anything_to_compare() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    found = parity(sums(torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), int(Role.TEXT)), nothing))
    assert found == {"parity/entries": 0.0}


def test_who_wrote_a_token_and_how_far_behind() -> None:
    versions = token_versions([[(3, 2), (4, 1)], [(4, 1)], [(2, 2)]])
    assert versions.tolist() == [[3, 3, 4], [4, -1, -1], [2, 2, -1]]
    # Of version 4: lags 1, 1, 0, 0, 2, 2; one of three answers is of two versions.
    assert off_policy_metrics(versions, 4) == {
        "off_policy/lag_mean": 1.0,
        "off_policy/lag_max": 2.0,
        "off_policy/mixed_answers": pytest.approx(1 / 3),
    }


def test_usage_of_a_rollout() -> None:
    s, z, e, word = 0, 1, 2, 3
    # A span of two that stops, and one of three that ends at the budget.
    layout = response_layout(torch.tensor([s, z, z, e, word, s, z, z, z, e]), LatentTokens(s, z, e), 3)
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    # Means (1, 0) and (1, 1)/..: the adjacent cosine is 1/sqrt(2). The sibling has one latent, orthogonal to the first.
    spans = [x.repeat(2, 1), torch.tensor([[1.0, 1.0]]).repeat(3, 1)]
    rewards = group_rewards([Rollout(Grade(True, True), True, spans), Rollout(Grade(False, True), True, [y])], Weights())
    usage = span_usage(layout, spans, rewards, 0)
    assert usage["adjacent_cosine"] == pytest.approx(2**-0.5, rel=1e-5)
    assert usage["cross_cosine"] == pytest.approx(0.0, abs=1e-6)
    counts = {name: usage[name] for name in ("spans", "latents", "stops", "budget_ends", "case", "diverse")}
    assert counts == {"spans": 2, "latents": 5, "stops": 1, "budget_ends": 1, "case": ContrastiveCase.NO_POSITIVE, "diverse": 1}


def info(**changed: float) -> dict[str, float | str]:
    return {
        "acc": 1.0, "format": 0.0, "contrastive": 0.5, "diversity": 0.0, "repetition": 0.0, "overlong": 0.0, "parsed": 1.0,
        "judged": 1.0, "split": "1-hop",
    } | changed  # fmt: skip


def used(**changed: float) -> dict[str, float]:
    return {
        "spans": 2.0, "latents": 6.0, "stops": 1.0, "budget_ends": 1.0, "case": float(ContrastiveCase.CONTRAST), "diverse": 1.0,
        "adjacent_cosine": 0.5, "cross_cosine": 0.25,
    } | changed  # fmt: skip


SILENT = used(
    spans=0.0, latents=0.0, stops=0.0, budget_ends=0.0, case=0.0, diverse=0.0, adjacent_cosine=math.nan, cross_cosine=math.nan
)


def test_reward_metrics_are_over_the_rollouts_with_a_verdict() -> None:
    unjudged = info(acc=math.nan, contrastive=0.0, parsed=0.0, judged=0.0)
    metrics = reward_metrics([info(), info(acc=0.0, parsed=0.0), info(), unjudged], [used(), SILENT, used(), used()])
    assert metrics["rewards/accuracy/mean"] == pytest.approx(2 / 3)
    assert metrics["rewards/accuracy/std"] == pytest.approx((2 / 9) ** 0.5)
    assert metrics["rewards/contrastive/mean"] == 0.5
    for part in ("accuracy", "contrastive", "diversity"):
        assert metrics[f"rewards/{part}/undefined"] == 0.25
    assert metrics["rewards/contrastive/contrast"] == 0.75
    assert metrics["answers/unjudged"] == 0.25 and metrics["answers/parsed"] == pytest.approx(2 / 3)


def test_validation_leaves_answers_without_a_verdict_out() -> None:
    """docs/differences.md, row 22: verl takes one NaN for the whole source, and a missing accuracy for a wrong one."""
    infos = {"acc": [1.0, math.nan, 0.0, math.nan], "judged": [1.0, 0.0, 1.0, 0.0]}
    sources, uids = ["a"] * 4, ["p", "p", "q", "r"]
    kept, expected = judged_rows(sources, uids, infos, {("a", "p"): 2, ("a", "q"): 1, ("a", "r"): 1})
    assert (kept, expected) == ([0, 2], {("a", "p"): 1, ("a", "q"): 1})
    left = {name: [values[i] for i in kept] for name, values in infos.items()}
    metrics = process_validation_metrics(["a", "a"], ["p", "q"], left, expected_acc_counts=expected)
    assert metrics["a"]["acc"]["mean@1"] == 0.5


def test_usage_metrics_leave_out_what_is_not_defined() -> None:
    metrics = usage_metrics([used(), used(adjacent_cosine=0.0), SILENT, used()])
    assert metrics["latents/with_span"] == 0.75 and metrics["latents/trigger_collapse"] == 0.0
    assert metrics["latents/latents_per_answer"] == 4.5
    assert metrics["latents/stop_share"] == metrics["latents/budget_end_share"] == 0.5  # 3 of 6 spans each
    assert metrics["latents/adjacent_cosine"] == pytest.approx(1 / 3)
    assert metrics["latents/cross_cosine"] == 0.25
    assert usage_metrics([SILENT] * 19 + [used()])["latents/trigger_collapse"] == 1.0


def test_ratio_sums_become_means_and_an_absent_part_gives_0() -> None:
    sums = {"actor/text/entries": 4.0, "actor/text/ratio_sum": 5.0, "actor/latent/entries": 0.0, "actor/latent/ratio_sum": 0.0}
    divided = divide_ratio_sums(sums | {"other": 1.0})
    assert divided == {
        "actor/text/entries": 4.0, "actor/text/ratio": 1.25, "actor/latent/entries": 0.0, "actor/latent/ratio": 0.0,
        "other": 1.0,
    }  # fmt: skip
