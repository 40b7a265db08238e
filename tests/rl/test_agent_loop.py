"""The barrier at which a prompt's rollouts are rewarded; stand-ins for the engine and TransferQueue."""

import asyncio
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.tokens import LatentSettings, LatentTokens
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.weights import Weights
from future_l1_verl.rl import group_barrier
from future_l1_verl.rl.agent_loop import LatentAgentLoopOutput, LatentAgentLoopWorker
from future_l1_verl.rl.settings import RewardSettings

WORDS = ["<eos>", "S", "Z", "E", "<reason>", "</reason>", "<answer>", "</answer>", "left", "right"]
ID = {word: i for i, word in enumerate(WORDS)}
ROW = {"question": "Where?", "reward_model": {"ground_truth": "left"}, "options": ["left", "right"], "split": "2-hop"}
REWARDS = RewardSettings(**asdict(Weights()), temperature=0.5, shape="interleaved", repetition_ngram=20, overlong_buffer=4)


class Tokenizer:
    eos_token_id = 0

    def decode(self, ids: object) -> str:
        return "".join(WORDS[i] for i in ids)


def worker(likelihood: str = "vmf") -> LatentAgentLoopWorker:
    """A worker without its processes: only what rewarding needs."""
    instance = object.__new__(LatentAgentLoopWorker)
    latent = {"likelihood": likelihood, "min_latents": 1}
    rollout = {"n": 2, "val_kwargs": {"n": 1}}
    instance.config = OmegaConf.create(
        {"latent": latent, "actor_rollout_ref": {"rollout": rollout}, "data": {"max_response_length": 100}}
    )
    instance.latent = LatentSettings(LatentTokens(ID["S"], ID["Z"], ID["E"]), 2)
    instance.rewards, instance.judge = REWARDS, None
    instance.tokenizer = Tokenizer()
    instance.groups = {}
    return instance


def reward(instance: LatentAgentLoopWorker, *outputs: LatentAgentLoopOutput) -> None:
    async def assessed() -> list:
        return [(output, await instance._assess(output, ROW)) for output in outputs]

    instance._reward(asyncio.run(assessed()))


def output(reply: str, latents: torch.Tensor) -> LatentAgentLoopOutput:
    ids = [ID[word] for word in reply.split()]
    fields = {"latents": latents, "turn_scores": []}
    return LatentAgentLoopOutput(
        prompt_ids=[0], response_ids=ids, response_mask=[1] * len(ids), metrics={}, extra_fields=fields, multi_modal_inputs={}
    )


GOOD = "S Z E <reason> left </reason> <answer> left </answer> <eos>"
FULL = "S Z Z E <reason> right </reason> <answer> right </answer> <eos>"


def test_every_rollout_of_a_prompt_is_rewarded_with_its_parts() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right, wrong = output(GOOD, x), output(FULL, y)
    reward(worker(), right, wrong)
    # The right one has no other right one: R_ctr 0. The wrong one has a positive and no other wrong one: R_ctr 1.
    assert right.reward_score == pytest.approx(0.9 + 0.1)
    assert wrong.reward_score == pytest.approx(0.1 + 0.2)
    assert wrong.extra_fields["latent_usage"]["budget_ends"] == 1.0
    assert right.extra_fields["reward_extra_info"]["acc"] == 1.0
    assert right.extra_fields["reward_extra_info"]["split"] == "2-hop"


@pytest.mark.parametrize(("likelihood", "forced_latent"), [("vmf", 1), ("none", 0)])
def test_what_the_policy_did_not_choose_is_masked(likelihood: str, forced_latent: int) -> None:
    rollout = output(FULL, torch.ones(2, 2))
    reward(worker(likelihood), rollout)
    # S, the forced first latent, a free one, the forced end, and text.
    assert rollout.response_mask[:4] == [1, forced_latent, 1, 0]
    assert rollout.response_mask[4:] == [1] * 7


def test_a_latent_too_few_is_an_error() -> None:
    """docs/differences.md, row 6."""
    with pytest.raises(ValueError, match="2 slots but the engine returned 1 latents"):
        reward(worker(), output(FULL, torch.ones(1, 2)))


def test_latents_become_a_field_of_their_own_with_their_checksum() -> None:
    latents = torch.randn(2, 4)
    fields = output(FULL, latents).as_dict()
    assert torch.equal(fields["latents"], latents)
    assert fields["latents_checksum"].tolist() == [checksum(latents)]
    assert "latents" not in fields["extra_fields"]


def test_a_rollout_without_a_verdict_is_masked_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/differences.md, row 22: there an outage of the judge makes an answer wrong."""
    instance = worker()

    async def no_verdict(*_: object) -> None:
        return None

    monkeypatch.setattr("future_l1_verl.rl.agent_loop.assess", no_verdict)
    failed = output(FULL, torch.ones(2, 2))
    reward(instance, failed)
    assert set(failed.response_mask) == {0} and failed.reward_score == 0.0
    info = failed.extra_fields["reward_extra_info"]
    assert math.isnan(info["acc"]) and info["judged"] == 0.0


def test_repetition_counts_text_and_not_latents() -> None:
    """Row 21, and a span of 30 latents is one id 30 times."""
    instance = worker()
    instance.latent = LatentSettings(instance.latent.tokens, 40)
    span = "S " + "Z " * 30 + "E "
    rollout = output(span + "left right", torch.ones(30, 2))
    instance.rewards = REWARDS.model_copy(update={"repetition_ngram": 2})
    assert asyncio.run(instance._assess(rollout, ROW)).repetition == 0.0
    # Pairs: (left right)(right left)(left right): one of three came before.
    assert asyncio.run(instance._assess(output("left right left right", torch.ones(0, 2)), ROW)).repetition == pytest.approx(
        -1 / 3
    )


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What reaches verl's worker: finished rollouts, and tags for the trainer. Its sessions fail or answer as told."""
    seen = SimpleNamespace(finished=[], tags=[], sessions=[])
    base = group_barrier._Worker

    async def run_session(self, sampling_params, trajectory, *, session_id, **row) -> None:
        session = seen.sessions[session_id]
        if isinstance(session, Exception):
            raise session
        if callable(session):
            session = await session()
        await self._compute_score([session], row)
        seen.finished.append(session.reward_score)

    async def run_prompt(self, prompt, sampling_params, trajectory, trace=False) -> None:
        runs = [self._run_agent_loop(sampling_params, trajectory, session_id=i, **prompt) for i in range(len(seen.sessions))]
        seen.results = await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), timeout=60)

    async def put(**tag) -> None:
        seen.tags.append(tag)

    monkeypatch.setattr(base, "_run_agent_loop", run_session)
    monkeypatch.setattr(base, "_run_prompt", run_prompt)
    monkeypatch.setattr(group_barrier, "tq", SimpleNamespace(async_kv_put=put))
    return seen


def run_prompt(instance: LatentAgentLoopWorker, validate: bool = False) -> None:
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
    assert upstream.tags == [{"key": "prompt", "partition_id": "train", "tag": {"error": "OSError: the engine is gone"}}]


def test_siblings_are_released_even_if_the_trainer_cannot_be_told(
    upstream: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: object) -> None:
        raise OSError("no TransferQueue")

    monkeypatch.setattr(group_barrier, "tq", SimpleNamespace(async_kv_put=broken))
    upstream.sessions = [output(GOOD, torch.ones(1, 2)), OSError("the engine is gone")]
    run_prompt(worker())
    assert "another rollout of prompt prompt failed" in str(upstream.results[0])


def test_the_judge_is_asked_while_siblings_are_still_decoding(upstream: SimpleNamespace) -> None:
    """docs/differences.md, row 24: the second rollout only ends once the judge has been asked about the first."""
    instance, asked = worker(), asyncio.Event()
    instance.judge = Judge(JudgeSettings(url="http://judge", model="m", mode="judge_only"))

    async def verdict(question: str, answer: str, truth: str) -> bool:
        asked.set()
        return True

    async def late() -> LatentAgentLoopOutput:
        await asyncio.wait_for(asked.wait(), timeout=60)
        return output(FULL, torch.ones(2, 2))

    instance.judge.verdict = verdict
    upstream.sessions = [output(GOOD, torch.ones(1, 2)), late]
    run_prompt(instance)
    assert len(upstream.finished) == 2
