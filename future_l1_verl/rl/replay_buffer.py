"""verl's replay buffers with the paper's group filter; they end the run when a rollout fails."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from future_l1_verl.rl.settings import GroupFilter


class RolloutError(RuntimeError):
    """A rollout failed; the message has its error."""


class NothingPasses(RuntimeError):
    """The group filter keeps too little to fill a step."""


class FilteringBuffer:
    """Mixin for verl's two buffers."""

    def __init__(self, *args: Any, sampler_kwargs: dict[str, Any], **kwargs: Any) -> None:
        """Reads ``sampler_kwargs``: the config section ``group_filter``, and ``dropped_file`` for a list of dropped groups."""
        # Upstream polls every 2 s, which is most of a step of a small model.
        super().__init__(*args, sampler_kwargs=sampler_kwargs, poll_interval=0.05, **kwargs)
        settings = dict(sampler_kwargs)
        self.dropped_file = Path(settings.pop("dropped_file"))
        self.group_filter = GroupFilter(**settings)
        self.dropped: list[dict[str, Any]] = []
        self.stale: list[dict[str, Any]] = []
        self.accuracies: list[float] = []  # of all groups answered since the last step, dropped ones too
        self.wanted = 0  # prompts of the batch that is being sampled

    def _sync_metadata_from_transfer_queue(self) -> None:
        """Upstream (replay_buffer.py) trains on the rest of a failed group, or repeats its prompt forever; here it raises."""
        super()._sync_metadata_from_transfer_queue()
        for partition, failed in self.failure_keys.items():
            for key in failed:
                error = tq.kv_list()[partition][key].get("error", "see the output of the agent loop worker")
                raise RolloutError(f"a rollout of prompt {key} failed: {error}")

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter]:
        """Upstream drops groups whose rollouts all have the same metric; here groups stay if their mean accuracy is in a range.

        Rollouts without a verdict have no accuracy; a group without any is dropped.
        """
        if partition_id == "val" or self.filter_groups_metric is None:
            return set(), Counter()
        finished, seen = self.finished_keys[partition_id], self._dapo_classification_cache[partition_id]
        for uid in seen.keys() - finished:
            del seen[uid]
        new = finished - seen.keys()
        keys = [key for key in self.partitions[partition_id] if key.split("_")[0] in new]
        if keys:
            data = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["extra_fields", "index"])
            groups: dict[str, list[tuple[float, int]]] = {uid: [] for uid in new}
            for key, fields, index in zip(keys, data["extra_fields"], data["index"], strict=True):
                info = getattr(fields, "data", fields)["reward_extra_info"]
                groups[key.split("_")[0]].append((float(info[self.filter_groups_metric]), int(index)))
            for uid, rollouts in groups.items():
                seen[uid] = self._mean_if_dropped(uid, rollouts)
        dropped = {uid: mean for uid, mean in seen.items() if mean is not None}
        return set(dropped), Counter(dropped.values())

    def _mean_if_dropped(self, uid: str, rollouts: list[tuple[float, int]]) -> float | None:
        values = [value for value, _ in rollouts if not np.isnan(value)]
        mean = float(np.mean(values)) if values else float("nan")
        if values:
            self.accuracies.append(mean)
        # Means of n values such as 0.1 have rounding errors far below 1/n.
        if self.group_filter.low - 1e-9 <= mean <= self.group_filter.high + 1e-9:
            return None
        self.dropped.append({"row": rollouts[0][1], "accuracy": mean if values else None, "uid": uid})
        return mean if values else -1.0

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, reasons: tuple) -> tuple[set[str], int, int, dict]:
        """Upstream (replay_buffer.py) requests prompts without limit, and does not report those dropped as too old
        (``max_off_policy_strategy=drop``)."""
        if stale := reasons[0]:
            keys = [f"{uid}_0_0" for uid in sorted(stale)]
            rows = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["index"])["index"]
            self.stale += [
                {"row": int(row), "stale": True, "uid": key.split("_")[0]} for key, row in zip(keys, rows, strict=True)
            ]
            self.dropped = [group for group in self.dropped if group["uid"] not in stale]
        evicted = super()._evict_terminal_groups(global_steps, partition_id, reasons)
        size = self.wanted
        kept = len(self._sampleable_terminal_keys(partition_id, reasons))
        if kept < size and len(self.dropped) > (self.group_filter.max_rounds - 1) * size:
            shown = ", ".join(str(group["accuracy"]) for group in self.dropped[:8])
            raise NothingPasses(
                f"step {global_steps}: {len(self.dropped)} of the groups have a mean accuracy outside "
                f"[{self.group_filter.low}, {self.group_filter.high}] ({shown}, ...), more than group_filter.max_rounds="
                f"{self.group_filter.max_rounds} rounds of {size} prompts allow; the questions are too easy or too hard for "
                "this model, or answers do not parse (answers/parsed)"
            )
        return evicted

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """Samples as upstream does; adds the numbers of dropped and kept groups, and the mean accuracy of all groups answered
        since the last step, NaN if there are none. Each dropped group is listed in a file, and listed again if a resumed run
        repeats its step."""
        if partition_id == "val":
            return super().sample(global_steps, partition_id, batch_size)
        self.wanted = batch_size
        try:
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
        finally:
            dropped = self._list_dropped(global_steps)
            answered, self.accuracies = self.accuracies, []
        if self.filter_groups_metric is None:
            return batch, metrics
        accuracy = [group["accuracy"] for group in dropped]
        # Upstream generates more than it needs, and discards the rest.
        kept = batch_size + metrics.get("training/filter_groups/discarded_surplus_samples", 0)
        return batch, metrics | {
            "filter/dropped": len(dropped),
            "filter/too_hard": sum(value is not None and value < self.group_filter.low for value in accuracy),
            "filter/too_easy": sum(value is not None and value > self.group_filter.high for value in accuracy),
            "filter/keep_rate": kept / (kept + len(dropped)),
            # The mean over kept groups stays near the middle of the range, however much the model learns.
            "filter/accuracy_before": float(np.mean(answered)) if answered else float("nan"),
        }

    def _list_dropped(self, global_steps: int) -> list[dict[str, Any]]:
        """Lists the groups dropped since the last step in the file; returns those dropped by the filter."""
        dropped, listed = self.dropped, self.dropped + self.stale
        self.dropped, self.stale = [], []
        if listed:
            with self.dropped_file.open("a") as file:
                file.writelines(json.dumps({"step": global_steps} | group) + "\n" for group in listed)
        return dropped


class StrictReplayBuffer(FilteringBuffer, ReplayBuffer):
    """The buffer of the sync mode."""


class StrictReplayBufferAsync(FilteringBuffer, ReplayBufferAsync):
    """The buffer of the modes in which rollouts continue while the actor learns."""

    def wait_for_sampleable(self, global_steps: int, partition_id: str, target_count: int) -> tuple[set[str], dict]:
        """Upstream calls it to sample, and earlier if the rollout borrows the actor's devices."""
        self.wanted = target_count
        return super().wait_for_sampleable(global_steps, partition_id, target_count)
