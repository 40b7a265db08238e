"""The barrier at which a prompt's rollouts are rewarded, with the engine and TransferQueue left out."""

import pytest
import torch
from omegaconf import OmegaConf

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rewards.total import Weights
from future_l1_verl.rl.agent_loop import LatentAgentLoopOutput, LatentAgentLoopWorker

WORDS = ["<eos>", "S", "Z", "E", "<reason>", "</reason>", "<answer>", "</answer>", "left", "right"]
ID = {word: i for i, word in enumerate(WORDS)}
ROW = {"reward_model": {"ground_truth": "left"}, "options": ["left", "right"]}


class Tokenizer:
    eos_token_id = 0

    def decode(self, ids: object) -> str:
        return "".join(WORDS[i] for i in ids)


def worker(likelihood: str = "vmf") -> LatentAgentLoopWorker:
    """A worker without its processes: only what rewarding needs."""
    instance = object.__new__(LatentAgentLoopWorker)
    instance.config = OmegaConf.create({"latent": {"likelihood": likelihood, "min_latents": 1}})
    instance.latent = LatentSettings(LatentTokens(ID["S"], ID["Z"], ID["E"]), 2)
    instance.weights = Weights()
    instance.tokenizer = Tokenizer()
    return instance


def output(reply: str, latents: torch.Tensor) -> LatentAgentLoopOutput:
    ids = [ID[word] for word in reply.split()]
    fields = {"latents": latents, "turn_scores": []}
    return LatentAgentLoopOutput(
        prompt_ids=[0], response_ids=ids, response_mask=[1] * len(ids), metrics={}, extra_fields=fields
    )


GOOD = "S Z E <reason> left </reason> <answer> left </answer> <eos>"
FULL = "S Z Z E <reason> right </reason> <answer> right </answer> <eos>"


def test_every_rollout_of_a_prompt_is_rewarded_with_its_parts() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right, wrong = output(GOOD, x), output(FULL, y)
    worker()._reward([right, wrong], ROW)
    # The right one has no other right one: R_ctr 0. The wrong one has a positive and no other wrong one: R_ctr 1.
    assert right.reward_score == pytest.approx(0.9 + 0.1)
    assert wrong.reward_score == pytest.approx(0.1 + 0.2)
    assert wrong.extra_fields["reward_extra_info"]["budget_ends"] == 1.0
    assert right.extra_fields["reward_extra_info"]["acc"] == 1.0


@pytest.mark.parametrize(("likelihood", "forced_latent"), [("vmf", 1), ("none", 0)])
def test_what_the_policy_did_not_choose_is_masked(likelihood: str, forced_latent: int) -> None:
    rollout = output(FULL, torch.ones(2, 2))
    worker(likelihood)._reward([rollout], ROW)
    # S, the forced first latent, a free one, the forced end, and text.
    assert rollout.response_mask[:4] == [1, forced_latent, 1, 0]
    assert rollout.response_mask[4:] == [1] * 7


def test_a_latent_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 slots but the engine returned 1 latents"):
        worker()._reward([output(FULL, torch.ones(1, 2))], ROW)


def test_latents_become_a_field_of_their_own_with_their_checksum() -> None:
    latents = torch.randn(2, 4)
    fields = output(FULL, latents).as_dict()
    assert torch.equal(fields["latents"], latents)
    assert fields["latents_checksum"].tolist() == [checksum(latents)]
    assert "latents" not in fields["extra_fields"]
