"""Rewards in verl's managers, by their own code."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch
from chat_server import Reply, serving
from omegaconf import OmegaConf
from scored_replies import REPLIES, ROW, SETTINGS, expected, outages
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.workers.reward_manager import get_reward_manager_cls as get_legacy_manager_cls

from future_l1_verl.rewards.adapters.unscored import Unscored
from future_l1_verl.toy import tiny_text

pytestmark = pytest.mark.engine

EACH, BATCH = ["naive", "dapo", "gdpo", "rate_limited", "remote"], ["naive", "dapo", "batch", "prime"]
FUNCTION = {"remote": "compute_score_sync", "batch": "compute_scores", "prime": "compute_number"}


@pytest.fixture(scope="module")
def outage() -> Iterator[dict[str, Any]]:
    with outages() as settings:
        yield settings


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_text.build(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


def config(function: str, settings: dict[str, Any], **reward: Any) -> Any:
    named = {"path": "pkg://future_l1_verl.rewards.adapters.verl", "name": function, "reward_kwargs": settings}
    # Stock verl logs "overlong" of its own under that name, and takes what a function returns by it for its own.
    buffer = {"enable": True, "len": 4, "penalty_factor": 0.0, "log": True}
    verls = {"num_workers": 1, "max_concurrent": 8, "reward_kwargs": {"overlong_buffer_cfg": buffer, "max_resp_len": 4096}}
    return OmegaConf.create({"reward": {"custom_reward_function": named} | verls | reward, "trainer": {"experiment_name": "e"}})


def batch(tokenizer: Any, replies: list[str]) -> DataProto:
    ids = [tokenizer(reply, add_special_tokens=False)["input_ids"] for reply in replies]
    width = max(map(len, ids)) + 1
    responses = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    # A reply that is empty is its end alone.
    present = torch.tensor([[1] * max(len(row), 1) + [0] * (width - max(len(row), 1)) for row in ids])
    responses[[not row for row in ids], 0] = tokenizer.eos_token_id
    count = len(replies)
    return DataProto.from_dict(
        tensors={
            "prompts": torch.ones(count, 1, dtype=torch.long),
            "responses": responses,
            "attention_mask": torch.cat([torch.ones(count, 1, dtype=torch.long), present], dim=1),
        },
        non_tensors={
            "data_source": np.array(["sums"] * count, dtype=object),
            "reward_model": np.array([{"ground_truth": "B"} for _ in replies], dtype=object),
            "extra_info": np.array([dict(ROW) for _ in replies], dtype=object),
        },
    )


def by_each(name: str, tokenizer: Any, settings: dict[str, Any], replies: list[str], **reward: Any) -> list[dict[str, Any]]:
    """What a manager of verl's reward loop says of each reply."""
    tree = config(FUNCTION.get(name, "compute_score"), settings, **reward)

    async def scored() -> list[dict[str, Any]]:
        cls = get_reward_manager_cls(name)
        cls._class_initialized = False  # its limits belong to an event loop
        manager = cls(tree, tokenizer, get_custom_reward_fn(tree))
        manager.loop = asyncio.get_running_loop()
        data = batch(tokenizer, replies)
        return await asyncio.gather(*(manager.run_single(data[i : i + 1]) for i in range(len(data))))

    return asyncio.run(scored())


@pytest.mark.parametrize("name", EACH)
def test_verls_reward_loop(name: str, tokenizer: Any, cluster: None) -> None:
    found = by_each(name, tokenizer, SETTINGS, REPLIES)
    assert [each["reward_score"] for each in found] == pytest.approx(expected())
    assert all(each["reward_extra_info"]["overlong_penalty"] == 0.0 for each in found)


@pytest.mark.parametrize("name", EACH)
def test_an_outage_is_no_zero_in_verls_reward_loop(name: str, tokenizer: Any, cluster: None, outage: dict[str, Any]) -> None:
    """And not in the actor where verl computes rewards: Ray hands over what is no Exception as the error of a task."""
    with pytest.raises((Unscored, ray.exceptions.RayTaskError), match="no verdict on 'B'"):
        by_each(name, tokenizer, outage, ["B"])

    class Manager:
        async def score(self) -> list[dict[str, Any]]:
            return await asyncio.to_thread(by_each, name, tokenizer, outage, ["B"])

    if name != "remote":
        with pytest.raises(ray.exceptions.RayTaskError, match="no verdict on 'B'"):
            ray.get(ray.remote(Manager).remote().score.remote())


def test_verls_time_limit_is_no_zero(tokenizer: Any) -> None:
    with serving() as slow:
        slow.script = lambda prompt, nth: Reply(after=5.0)
        judge = {"url": slow.url, "model": "m", "mode": "judge_only"}
        with pytest.raises(Unscored, match="the trainer's time limit for a reward was reached"):
            by_each("rate_limited", tokenizer, {"judge": judge}, ["B"], timeout=0.2)


def by_legacy(name: str, tokenizer: Any, settings: dict[str, Any], replies: list[str], **more: Any) -> list[float]:
    tree = config(FUNCTION.get(name, "compute_score_sync"), settings)
    manager = get_legacy_manager_cls(name)(tokenizer, 0, get_custom_reward_fn(tree), **more)
    data = batch(tokenizer, replies)
    return manager(data).sum(dim=1).tolist()


@pytest.mark.parametrize("name", BATCH)
def test_verls_legacy_managers(name: str, tokenizer: Any, outage: dict[str, Any]) -> None:
    assert by_legacy(name, tokenizer, SETTINGS, REPLIES) == pytest.approx(expected(), abs=1e-6)
    with pytest.raises(Unscored, match="no verdict on 'B'"):
        by_legacy(name, tokenizer, outage, ["B"])


def test_what_prime_would_take_for_a_zero_is_none(tokenizer: Any, outage: dict[str, Any]) -> None:
    with pytest.raises(Unscored, match="this trainer would score None 0"):
        by_legacy("prime", tokenizer, outage | {"no_verdict": None}, ["B"])


def test_what_score_alone_raises_would_be_a_zero(tokenizer: Any, outage: dict[str, Any]) -> None:
    """The control: why these are not `score.compute_score` itself."""
    tree = config("compute_score", outage)
    tree.reward.custom_reward_function.path = "pkg://future_l1_verl.rewards.score"

    async def scored() -> dict[str, Any]:
        cls = get_reward_manager_cls("rate_limited")
        cls._class_initialized = False
        return await cls(tree, tokenizer, get_custom_reward_fn(tree)).run_single(batch(tokenizer, ["B"]))

    assert asyncio.run(scored())["reward_score"] == 0.0
