"""The barrier at which a prompt's rollouts are rewarded; stand-ins for the engine and TransferQueue."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rewards.total import Weights
from future_l1_verl.rl import agent_loop
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


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What reaches verl's worker: finished rollouts, and tags for the trainer. Its sessions fail or answer as told."""
    seen = SimpleNamespace(finished=[], tags=[], sessions=[])
    base = LatentAgentLoopWorker.__mro__[1]

    async def postprocess(self, output, validate, **row) -> None:
        seen.finished.append(output.reward_score)

    async def run_session(self, sampling_params, trajectory, *, session_id, **row) -> None:
        session = seen.sessions[session_id]
        if isinstance(session, Exception):
            raise session
        await self._agent_loop_postprocess(session, trajectory["validate"], **row)

    async def run_prompt(self, prompt, sampling_params, trajectory, trace=False) -> None:
        runs = [self._run_agent_loop(sampling_params, trajectory, session_id=i, **prompt) for i in range(len(seen.sessions))]
        seen.results = await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), timeout=10)

    async def put(**tag) -> None:
        seen.tags.append(tag)

    monkeypatch.setattr(base, "_agent_loop_postprocess", postprocess)
    monkeypatch.setattr(base, "_run_agent_loop", run_session)
    monkeypatch.setattr(base, "_run_prompt", run_prompt)
    monkeypatch.setattr(agent_loop, "tq", SimpleNamespace(async_kv_put=put))
    return seen


def run_prompt(instance: LatentAgentLoopWorker, validate: bool = False) -> None:
    rollout = {"n": 2, "val_kwargs": {"n": 1}}
    instance.config = OmegaConf.merge(instance.config, {"actor_rollout_ref": {"rollout": rollout}})
    instance.groups = {}
    asyncio.run(instance._run_prompt(ROW | {"uid": "prompt"}, {}, {"validate": validate}))
    assert instance.groups == {}


def test_no_rollout_goes_on_before_its_whole_group_is_rewarded(upstream: SimpleNamespace) -> None:
    upstream.sessions = [output(GOOD, torch.ones(1, 2)), output(FULL, torch.ones(2, 2))]
    run_prompt(worker())
    # 0.9 + 0.1 and R_ctr 0 for the right one, 0.1 and R_ctr 1 for the wrong one: known only when both are there.
    assert sorted(upstream.finished) == pytest.approx([0.3, 1.0])
    assert upstream.tags == []


def test_in_validation_a_group_has_its_own_size(upstream: SimpleNamespace) -> None:
    upstream.sessions = [output(GOOD, torch.ones(1, 2))]
    run_prompt(worker(), validate=True)
    assert len(upstream.finished) == 1


def test_a_failed_rollout_releases_its_siblings_and_says_why(upstream: SimpleNamespace) -> None:
    upstream.sessions = [output(GOOD, torch.ones(1, 2)), OSError("the engine is gone")]
    run_prompt(worker())
    assert upstream.finished == []
    assert "another rollout of prompt prompt failed" in str(upstream.results[0])
    assert upstream.tags == [{"key": "prompt", "partition_id": "train", "tag": {"error": "OSError('the engine is gone')"}}]
