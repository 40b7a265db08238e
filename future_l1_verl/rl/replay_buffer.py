"""verl's replay buffer, which ends the run when a rollout fails instead of training without it."""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class RolloutError(RuntimeError):
    """A rollout failed; the message carries its error."""


class StrictReplayBuffer(ReplayBuffer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Upstream looks every 2 s, which is most of a step of a small model.
        super().__init__(*args, poll_interval=0.2, **kwargs)

    def _sync_metadata_from_transfer_queue(self) -> None:
        """Upstream (replay_buffer.py:317) trains on what is left of a failed group, or asks its prompt again and again."""
        super()._sync_metadata_from_transfer_queue()
        for partition, failed in self.failure_keys.items():
            for key in failed:
                error = tq.kv_list()[partition][key].get("error", "see the output of the agent loop worker")
                raise RolloutError(f"a rollout of prompt {key} failed: {error}")
