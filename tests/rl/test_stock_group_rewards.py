"""R_ctr and R_div added to the scores of a stock verl job."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.total import Rollout
from future_l1_verl.rl.stock_group_rewards import GroupRewardWorker

S, Z, E, WORD = 0, 1, 2, 3


def worker(**sections: dict) -> GroupRewardWorker:
    instance = object.__new__(GroupRewardWorker)
    instance.config = OmegaConf.create(sections)
    settings = LatentSettings(LatentTokens(S, Z, E), 3).to_config()
    instance.model_config = SimpleNamespace(hf_config=settings)
    return instance


def output(ids: list[int], score: float, latents: torch.Tensor | None) -> SimpleNamespace:
    fields = {"reward_extra_info": {"acc": score}} | ({} if latents is None else {"latents": latents})
    return SimpleNamespace(response_ids=ids, reward_score=score, extra_fields=fields)


def rewarded(instance: GroupRewardWorker, *outputs: SimpleNamespace) -> list[float]:
    instance._reward([(o, Rollout(Grade(o.reward_score > 0, True), False, instance._spans(o))) for o in outputs])
    return [o.reward_score for o in outputs]


X, Y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])


def outputs() -> list[SimpleNamespace]:
    """Right with spans x and y, wrong with x, and right without latents."""
    two = output([S, Z, E, WORD, S, Z, E], 1.0, torch.cat([X, Y]))
    return [two, output([S, Z, E], 0.0, X), output([WORD], 1.0, None)]


def test_the_group_parts_have_the_papers_weights() -> None:
    # R_ctr: 0 for the right one (no other right one with latents), 1 for the wrong one, their mean for the last.
    # R_div: -1/2, the squared cosine of x and y, for the first, and by its mean for all.
    assert rewarded(worker(), *outputs()) == pytest.approx([1 - 0.05, 0.2 - 0.05, 1 + 0.1 - 0.05])


def test_a_section_changes_the_weights() -> None:
    assert rewarded(worker(rewards={"contrastive": 1.0, "diversity": 0.0}), *outputs()) == pytest.approx([1.0, 1.0, 1.5])


def test_without_latents_nothing_is_added() -> None:
    assert rewarded(worker(), output([WORD], 1.0, None), output([WORD], 0.0, None)) == [1.0, 0.0]
