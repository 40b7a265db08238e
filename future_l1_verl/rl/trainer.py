"""verl's synchronous V1 trainer with the LA-DAPO loss and with the figures this project promises at every step."""

from __future__ import annotations

from functools import partial
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rl.loss import la_dapo_loss
from future_l1_verl.rl.metrics import parity, rollout_metrics
from future_l1_verl.rl.replay_buffer import StrictReplayBuffer
from future_l1_verl.rl.watchdog import Watchdog


class LatentTrainer(PPOTrainerSync):
    def _build_replay_buffer(self) -> StrictReplayBuffer:
        """Upstream passes group filtering on to its own classes only, not to one named in ``custom_sampler``."""
        trainer_base.ReplayBuffer = StrictReplayBuffer
        return super()._build_replay_buffer()

    def on_init_end(self) -> None:
        super().on_init_end()
        # The first server of a replica holds its engine; those on other nodes only lend it their devices.
        self.watchdog = Watchdog([replica.servers[0] for replica in self.llm_server_manager.get_replicas()])

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        with self.watchdog.raising_here():
            super().fit(agent_loop_manager)

    def _setup(self) -> None:
        super()._setup()
        self.latent = LatentSettings.from_checkpoint(self.config.actor_rollout_ref.model.path)
        actor = self.config.actor_rollout_ref.actor
        without_kl = OmegaConf.merge(actor, {"use_kl_loss": False})
        loss = partial(
            la_dapo_loss,
            config=omega_conf_to_dataclass(without_kl),
            kl_coef=actor.kl_loss_coef if actor.use_kl_loss else 0.0,
            latent=self.latent,
        )
        # Upstream fixes the loss when it builds the actor (engine_workers.py:646).
        self.actor_rollout_wg.set_loss_fn(loss)

    def _compute_old_log_prob(self, batch: Any, metrics: dict) -> Any:
        """Upstream compares probabilities over all entries; a latent's entry is none. Ours compares log-probs of tokens."""
        batch = super()._compute_old_log_prob(batch, metrics)
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        fields = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["responses", "rollout_log_probs", "old_log_probs"]
        )
        responses = fields["responses"].to_padded_tensor(padding=-1)
        layout = response_layout(responses, self.latent.tokens, self.latent.max_latents, self.config.latent.min_latents)
        rollout, actor = (fields[key].to_padded_tensor(padding=0.0) for key in ("rollout_log_probs", "old_log_probs"))
        metrics.update(parity(rollout, actor, layout.roles, responses != -1))
        return batch

    def _compute_metrics(self, batch: Any, metrics: dict, *args: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        fields = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        metrics.update(rollout_metrics([row["reward_extra_info"] for row in fields["extra_fields"]]))
