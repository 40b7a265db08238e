"""The group filter on what verl's replay buffer sees; a dict stands in for TransferQueue."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.v1 import replay_buffer as upstream

from future_l1_verl.rl import replay_buffer
from future_l1_verl.rl.replay_buffer import NothingPasses, RolloutError, StrictReplayBuffer, StrictReplayBufferAsync


class Queue:
    """Prompts and their rollouts, as verl's workers would store them."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, Any]] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def add(self, uid: str, accuracies: list[float], status: str = "finished", **tag: Any) -> None:
        self.tags[uid] = {"is_prompt": True, "status": status, "global_steps": 1} | tag
        for i, accuracy in enumerate(accuracies):
            # Other parts vary, whatever the accuracy does.
            info = {"acc": accuracy, "repetition": -float(i)}
            self.tags[f"{uid}_{i}_0"] = {"status": "success"}
            self.values[f"{uid}_{i}_0"] = {"extra_fields": {"reward_extra_info": info}, "index": int(uid[1:])}

    def kv_list(self) -> dict[str, dict[str, dict]]:
        return {"train": {key: dict(tag) for key, tag in self.tags.items()}}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list]:
        return {field: [self.values[key][field] for key in keys] for field in select_fields}

    def kv_clear(self, partition_id: str, keys: list[str]) -> None:
        for key in keys:
            self.tags.pop(key, None)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    for module in (replay_buffer, upstream):
        monkeypatch.setattr(module, "tq", queue)
    return queue


def buffer(
    folder: Path, queue: Queue, refills: list[list[float]], size: int = 2, max_rounds: int = 3, mode: str = "sync"
) -> StrictReplayBuffer | StrictReplayBufferAsync:
    """Refilled prompts take their accuracies from ``refills``, over and over."""
    made = iter(range(100, 10**6))

    def refill(count: int) -> None:
        for _ in range(count):
            number = next(made)
            queue.add(f"p{number}", refills[number % len(refills)], global_steps=9)

    # As trainer_base.py builds them: the async one is not told how many prompts make a step.
    sync = {"train_batch_size": size, "gen_batch_size": 1, "max_inflight_gen_batches": 1} if mode == "sync" else {}
    built = (StrictReplayBuffer if mode == "sync" else StrictReplayBufferAsync)(
        trainer_mode=mode, trainer_config={}, max_off_policy_threshold=8, max_off_policy_strategy="drop",
        sampler_kwargs={"low": 0.1, "high": 0.9, "max_rounds": max_rounds, "dropped_file": str(folder / "dropped.jsonl")},
        refill_fn=refill, filter_groups_metric="acc", **sync,
    )  # fmt: skip
    built.poll_interval = 0.0
    return built


MIXED, EASY, HARD = [1.0, 0.0, 1.0, 0.0], [1.0] * 4, [0.0] * 4


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_groups_that_are_too_easy_or_too_hard_are_replaced_and_listed(tmp_path: Path, queue: Queue, mode: str) -> None:
    queue.add("p1", EASY)
    queue.add("p2", MIXED)
    batch, metrics = buffer(tmp_path, queue, [HARD, MIXED], mode=mode).sample(7, "train", 2)
    assert len(batch.keys) == 8 and all(key.startswith(("p2_", "p101_")) for key in batch.keys)
    assert (metrics["filter/dropped"], metrics["filter/too_easy"], metrics["filter/too_hard"]) == (2, 1, 1)
    assert metrics["filter/keep_rate"] == 0.5
    # Two mixed groups with 2 of 4 right, one with 4, one with 0: dropped ones count.
    assert metrics["filter/accuracy_before"] == 8 / 16
    listed = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert [(row["step"], row["row"], row["accuracy"]) for row in listed] == [(7, 1, 1.0), (7, 100, 0.0)]


@pytest.mark.parametrize("mode", ["sync", "separate_async"])
def test_a_step_whose_every_group_is_dropped_ends_with_the_reason(tmp_path: Path, queue: Queue, mode: str) -> None:
    queue.add("p1", HARD)
    queue.add("p2", HARD)
    # Three rounds of two prompts: more than four dropped groups are too many.
    with pytest.raises(NothingPasses, match=r"step 7: [5-9] of the groups have a mean accuracy outside \[0.1, 0.9\] \(0.0"):
        buffer(tmp_path, queue, [HARD], mode=mode).sample(7, "train", 2)
    listed = [json.loads(line)["accuracy"] for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(listed) > 4 and set(listed) == {0.0}


def test_a_step_that_is_full_is_taken_whatever_was_dropped_beside_it(tmp_path: Path, queue: Queue) -> None:
    for number, accuracies in enumerate([MIXED, HARD, HARD, HARD, MIXED, MIXED]):
        queue.add(f"p{number}", accuracies)
    batch, metrics = buffer(tmp_path, queue, [HARD], max_rounds=2).sample(7, "train", 2)
    assert len(batch.keys) == 8
    # Three passed, one of them more than needed, and three were dropped.
    assert (metrics["filter/dropped"], metrics["filter/keep_rate"]) == (3, 0.5)
    assert metrics["filter/accuracy_before"] == 3 * 2 / (6 * 4)


def test_groups_dropped_between_two_steps_are_listed_and_bounded(tmp_path: Path, queue: Queue) -> None:
    """As where the actor's devices are lent: verl then looks and waits outside a step's sampling."""
    queue.add("p1", EASY)
    queue.add("p2", MIXED)
    strict = buffer(tmp_path, queue, [MIXED], mode="separate_async")
    assert strict.get_sampleable_count(7, "train") == 1
    _, metrics = strict.sample(7, "train", 2)
    assert metrics["filter/dropped"] == 1
    assert metrics["filter/accuracy_before"] == (4 + 2 + 2) / (3 * 4)
    assert json.loads((tmp_path / "dropped.jsonl").read_text())["row"] == 1
    queue.add("p3", HARD)
    with pytest.raises(NothingPasses):
        buffer(tmp_path, queue, [HARD], mode="separate_async").wait_for_sampleable(8, "train", 2)


def test_answers_that_are_too_old_are_listed(tmp_path: Path, queue: Queue) -> None:
    queue.add("p1", EASY, global_steps=1)
    queue.add("p2", MIXED, global_steps=4)
    # At step 9 the first has seen nine versions of the weights, one more than allowed; the second six.
    batch, _ = buffer(tmp_path, queue, [MIXED], size=1, mode="separate_async").sample(9, "train", 1)
    assert {key.split("_")[0] for key in batch.keys} == {"p2"}
    listed = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert listed == [{"step": 9, "row": 1, "stale": True, "uid": "p1"}]


@given(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=1, max_size=16))
def test_the_filter_is_the_mean_of_the_accuracies_there_are(accuracies: list[float]) -> None:
    """docs/differences.md, row 21: repetition varies in every group, and changes nothing."""
    queue = Queue()
    queue.add("p1", accuracies)
    with pytest.MonkeyPatch.context() as patch:
        for module in (replay_buffer, upstream):
            patch.setattr(module, "tq", queue)
        strict = buffer(Path("/nowhere"), queue, [MIXED])
        strict._sync_metadata_from_transfer_queue()
        dropped, _ = strict._dapo_filtered_keys("train")
    judged = [value for value in accuracies if not math.isnan(value)]
    right = judged.count(1.0)
    # One of ten right is 0.1, which stays.
    assert (dropped == set()) == bool(judged and 10 * right >= len(judged) and 10 * right <= 9 * len(judged))


def test_a_failed_rollout_ends_the_run_with_its_error(tmp_path: Path, queue: Queue) -> None:
    """Row 6: there an exception silently drops the latent term."""
    queue.add("p1", MIXED, status="failure", error="OSError('gone')")
    with pytest.raises(RolloutError, match=r"a rollout of prompt p1 failed: OSError\('gone'\)"):
        buffer(tmp_path, queue, [MIXED]).sample(7, "train", 1)


def test_without_a_metric_nothing_is_filtered(tmp_path: Path, queue: Queue) -> None:
    queue.add("p1", HARD)
    strict = buffer(tmp_path, queue, [MIXED], size=1)
    strict.filter_groups_metric = None
    batch, metrics = strict.sample(7, "train", 1)
    assert len(batch.keys) == 4 and not any(key.startswith("filter/") for key in metrics)
