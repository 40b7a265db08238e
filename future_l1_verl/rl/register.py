"""Registers our classes with verl in every process: verl imports this module as ``actor_rollout_ref.model.external_lib``."""

from future_l1_verl.versions import require

require("verl", "vllm", "transfer_queue", "transformers")

# ruff: noqa: E402  what follows relies on these versions
from verl.workers.rollout.replica import RolloutReplicaRegistry

import future_l1_verl.rl.advantage
import future_l1_verl.rl.loss
import future_l1_verl.rl.position_ids
import future_l1_verl.training.engine  # noqa: F401  each registers itself with verl


def _replica() -> type:
    from future_l1_verl.rl.rollout import LatentReplica

    return LatentReplica


# Under verl's own name: its code checks rollout.name == "vllm" in many places (workers/rollout/replica.py).
RolloutReplicaRegistry.register("vllm", _replica)
