"""verl's synchronous V1 trainer with the LA-DAPO loss and with the figures this project promises at every step."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.platform.launch import require_platform
from future_l1_verl.rl.loss import la_dapo_loss
from future_l1_verl.rl.metrics import parity, rollout_metrics


class LatentTrainer(PPOTrainerSync):
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
        # Upstream fixes the loss when it builds the actor (engine_workers.py:650).
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
        metrics.update(rollout_metrics([row["reward_extra_info"] for row in fields["extra_fields"].tolist()]))


# TaskRunnerV1 is a Ray actor class already (main_ppo.py:93); this is the class it was made of.
_TaskRunner = TaskRunnerV1.__ray_metadata__.modified_class


class LatentTaskRunner(_TaskRunner):
    def run(self, config: DictConfig) -> None:
        """Upstream looks the trainer up by mode. The name stays "sync": verl's code compares with it in many places."""
        require_platform(config.trainer.device)
        TRAINER_REGISTRY["sync"] = LatentTrainer
        super().run(config)


task_runner = ray.remote(num_cpus=1)(LatentTaskRunner)
