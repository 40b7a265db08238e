"""The trainers of verl's three V1 modes, with latents; modes differ in the order of steps and in the devices of each part."""

import logging
import math

import ray
import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_separate_async import logger as separate_log
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from future_l1_verl.rl.parity import parity
from future_l1_verl.rl.trainer import LatentTrainer
from future_l1_verl.rl.worker import SeparateWorker


class SyncTrainer(LatentTrainer, PPOTrainerSync):
    """Rollout and actor take turns on the same devices."""


class ColocateAsyncTrainer(LatentTrainer, PPOTrainerColocateAsync):
    """Like sync, but answers that a step does not need yet are cut before it and continued after it."""


class SeparateAsyncTrainer(LatentTrainer, PPOTrainerSeparateAsync):
    """The rollout has separate devices and continues while the actor learns; the reference may have separate ones too."""

    parity_before: dict[str, float]
    saved_version: int | None = None  # the version of the weights that the actor keeps on the host, from the step before

    def _setup(self) -> None:
        """Upstream (trainer_separate_async.py) ends with ``logger.info(..., flush=True)``, a TypeError if it is shown."""
        level = separate_log.level
        separate_log.setLevel(logging.WARNING)
        try:
            super()._setup()
        finally:
            separate_log.setLevel(level)

    def _init_resource_pool_mgr(self) -> None:
        """Upstream (trainer_base.py) always puts the reference on the actor's devices; here it may have separate ones."""
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping.keys() & {Role.Actor, Role.ActorRollout, Role.ActorRolloutRef, Role.RefPolicy}:
            self.role_worker_mapping[role] = ray.remote(SeparateWorker)
        if self._reference_devices:
            pool = self.config.reference_pool
            self.resource_pool_manager.resource_pool_spec["reference_pool"] = [pool.n_gpus_per_node] * pool.nnodes
            self.mapping[Role.RefPolicy] = "reference_pool"

    @property
    def _reference_devices(self) -> int:
        pool = self.config.reference_pool
        return pool.nnodes * pool.n_gpus_per_node if Role.RefPolicy in self.role_worker_mapping else 0

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        """Upstream pads a batch for the actor's ranks only; here for the reference's as well."""
        return math.lcm(super()._get_required_batch_multiple(dp_size), self._reference_devices or 1)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Upstream computes them with the weights from the start of the step, kept on the host as number 0. A rollout that is
        faster than the actor wrote everything with the weights before those: they are still there, and parity is measured
        with them."""
        before = {}
        if self.local_trigger_step == 0:
            versions = self._versions(batch)
            if self.saved_version == self.version - 1 and not (versions == self.version).any():
                before = self._parity_of_saved(batch, versions == self.saved_version)
            self.saved_version = self.version
        batch = super()._compute_old_log_prob(batch, metrics)
        if self._needs_old_pass(batch) is None:
            self.actor_rollout_wg.save_model_to_cpu(0)  # upstream does it in the pass that is skipped here
        self.parity_before = before
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._update_actor(batch, metrics)
        metrics.update(self.parity_before)
        return batch

    def _parity_of_saved(self, batch: KVBatchMeta, compared: torch.Tensor) -> dict[str, float]:
        """Returns parity with the saved weights; it costs a forward pass over the batch."""
        actor = self.actor_rollout_wg
        actor.save_model_to_cpu(1)
        actor.restore_model_from_cpu(0)
        found = parity(self._parity_sums(PPOTrainer._compute_old_log_prob(self, batch, {}), compared))
        actor.restore_model_from_cpu(1)
        actor.clear_cpu_model(1)
        return found


TRAINERS = {"sync": SyncTrainer, "colocate_async": ColocateAsyncTrainer, "separate_async": SeparateAsyncTrainer}
