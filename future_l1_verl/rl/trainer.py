"""verl's V1 trainer with the LA-DAPO loss and with our metrics at every step."""

import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.utils import MetricsAggregator
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.seqlen_balancing import log_seqlen_unbalance
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.utils.padding import response_from_nested, response_to_nested

from future_l1_verl.latents.spans import Layout, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rl.advantage import rollout_advantages
from future_l1_verl.rl.client import LatentServerClient
from future_l1_verl.rl.loss import la_dapo_loss
from future_l1_verl.rl.metrics import (
    COLLAPSE,
    COUNTS,
    divide_parity_sums,
    divide_ratio_sums,
    judged_rows,
    off_policy_metrics,
    reward_metrics,
    token_versions,
    usage_metrics,
    validation_metrics,
)
from future_l1_verl.rl.parity import parity, require_parity, sums
from future_l1_verl.rl.replay_buffer import StrictReplayBuffer, StrictReplayBufferAsync
from future_l1_verl.rl.settings import LatentLoss, RewardSettings
from future_l1_verl.rl.watchdog import Watchdog
from future_l1_verl.training.balancing import first_of_parts, over_ranks
from future_l1_verl.training.checkpoints import delete_older, open_whole, saying_where
from future_l1_verl.training.engine import PIXELS

log = logging.getLogger(__name__)


def loss_function(config: DictConfig, settings: LatentSettings) -> partial:
    """Returns the loss of the actor for the whole config tree: `la_dapo_loss` without its first three arguments."""
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    latent = LatentLoss.read(config, "latent_loss")
    return partial(
        la_dapo_loss,
        config=actor,
        latent_config=replace(actor, clip_ratio_low=latent.clip_low, clip_ratio_high=latent.clip_high, global_batch_info={}),
        latent=latent,
        settings=settings,
        min_latents=config.latent.min_latents,
    )


class SummingMetrics(MetricsAggregator):
    def _init_aggregation_rules(self) -> dict[str, list[str]]:
        rules = super()._init_aggregation_rules()
        return rules | {"sum": [*rules["sum"], *COUNTS]}


class LatentTrainer(trainer_base.PPOTrainer):
    """The base of the trainers of all modes (rl/modes.py)."""

    def _build_replay_buffer(self) -> StrictReplayBuffer | StrictReplayBufferAsync:
        """Upstream passes group filtering on to its own classes only, not to one named in ``custom_sampler``."""
        trainer_base.ReplayBuffer, trainer_base.ReplayBufferAsync = StrictReplayBuffer, StrictReplayBufferAsync
        return super()._build_replay_buffer()

    def get_llm_client(self) -> LLMServerClient:
        """Upstream's clients differ by mode, and none carries latents. Servers on separate devices, if any, come last."""
        return self._rollout_server_managers()[-1].get_client(client_cls=LatentServerClient)

    def on_init_end(self) -> None:
        super().on_init_end()
        replicas = [replica for manager in self._rollout_server_managers() for replica in manager.get_replicas()]
        # The first server of a replica holds its engine; those on other nodes only lend it their devices.
        self.watchdog = Watchdog([replica.servers[0] for replica in replicas])

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """Upstream averages unknown metrics over the updates of a step; here counts are summed."""
        trainer_base.MetricsAggregator = SummingMetrics
        return super().step(metrics, timing_raw)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        with self.watchdog.raising_here():
            super().fit(agent_loop_manager)

    def _setup(self) -> None:
        super()._setup()
        self.latent = LatentSettings.from_checkpoint(self.config.actor_rollout_ref.model.path)
        self.weights = RewardSettings.read(self.config, "rewards").weights
        self.said: str | None = ""
        self.compared = False  # whether a step has measured parity yet
        # Upstream fixes the loss when it builds the actor (engine_workers.py).
        self.actor_rollout_wg.set_loss_fn(loss_function(self.config, self.latent))

    def _load_checkpoint(self) -> None:
        """Upstream never deletes checkpoints of earlier processes; here the one resumed from is deleted when it is old."""
        super()._load_checkpoint()
        own = self.global_steps > 0 and self.config.trainer.resume_mode == "auto"
        self.saved = [self._checkpoint] if own else []

    @property
    def _checkpoint(self) -> Path:
        """The folder of this step's checkpoint."""
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _save_checkpoint(self) -> None:
        """Upstream (trainer_base.py) deletes the previous checkpoint once the actor's part of the new one is written, and
        empties the file that names the last one before it writes it: if the process dies in between or the disk is full, there
        is nothing to resume from. Here old checkpoints are deleted after the new one is named."""
        settings, folder = self.config.trainer, self._checkpoint
        keep, settings.max_actor_ckpt_to_keep = settings.max_actor_ckpt_to_keep, None
        trainer_base.open = open_whole
        with saying_where(folder):
            super()._save_checkpoint()
        settings.max_actor_ckpt_to_keep = keep
        self.saved.append(folder)
        delete_older(self.saved, keep)

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict, logging_prefix: str = "global_seqlen", keep_minibatch: bool = False
    ) -> KVBatchMeta:
        """Upstream (trainer_base.py) divides answers among the actor's ranks one by one, as if each had its own prompt. Here
        the answers to a question stay together, and their cost is computed together."""
        ranks = _data_parallel_size(self.actor_rollout_wg, "actor")
        batch = upsample_batch_to_divisible_size(batch, self._get_required_batch_multiple(ranks), self.tokenizer.eos_token_id)
        questions = _questions(batch)
        prompts, answers = ([tag[name] for tag in batch.tags] for name in ("prompt_len", "response_len"))
        parts = over_ranks(questions, prompts, answers, ranks)
        once = {part[row] for part in parts for row in first_of_parts([questions[row] for row in part], [len(part)])}
        lengths = [answer + prompt * (row in once) for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))]
        metrics.update(log_seqlen_unbalance(lengths, parts, logging_prefix))
        batch.reorder([row for part in parts for row in part])
        self._give_pixels(batch, ranks)
        return batch

    def _give_pixels(self, batch: KVBatchMeta, ranks: int) -> None:
        """Stores the pixels of a question again for each of its parts, if it is divided among ranks or updates."""
        sizes = {len(batch) // ranks, self._rows_of_an_update // ranks}
        if self.use_reference_policy and not self.ref_in_actor:
            sizes.add(len(batch) // _data_parallel_size(self.ref_policy_wg, "ref"))
        questions = _questions(batch)
        rows = first_of_parts(questions, sizes)
        divided = {question for question, parts in Counter(questions[row] for row in rows).items() if parts > 1}
        keys = [key for key, question in zip(batch.keys, questions, strict=True) if question in divided]
        if not keys:
            return
        stored = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["multi_modal_inputs"])
        whole = {
            key.split("_")[0]: dict(inputs)
            for key, inputs in zip(keys, stored["multi_modal_inputs"], strict=True)
            if any(name in inputs for name in PIXELS)
        }
        rows = [row for row in rows if questions[row] in whole]
        if rows:
            fields = {"multi_modal_inputs": NonTensorStack(*(whole[questions[row]] for row in rows))}
            tq.kv_batch_put(
                keys=[batch.keys[row] for row in rows],
                partition_id=batch.partition_id,
                fields=TensorDict(fields, batch_size=len(rows)),
            )

    @property
    def _rows_of_an_update(self) -> int:
        return self.config.actor_rollout_ref.actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n

    def _needs_old_pass(self, batch: KVBatchMeta) -> str | None:
        """Returns why the old log-probs need a separate pass; None if the batch is one update: they are then the update's own,
        detached, with the same gradient."""
        epochs, size = self.config.actor_rollout_ref.actor.ppo_epochs, self._rows_of_an_update
        if epochs != 1:
            return f"actor_rollout_ref.actor.ppo_epochs is {epochs}"
        if len(batch) != size:
            return f"a batch of {len(batch)} answers is more than an update (actor.ppo_mini_batch_size * rollout.n = {size})"
        if self.parameter_sync_step != 1:
            return f"the rollout gets weights after {self.parameter_sync_step} updates (parameter_sync_step)"
        return None

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Upstream always makes a pass for them, keeps one number per token and compares probabilities of all tokens; here
        latents have a separate density."""
        versions = self._versions(batch)
        metrics.update(off_policy_metrics(versions, self.version))
        reason = self._needs_old_pass(batch)
        if reason != self.said:
            print("log-probs before an update:", f"from a pass of their own: {reason}" if reason else "those of the update")
            self.said = reason
        if reason is None:
            mask = _get(batch, ["response_mask"])["response_mask"]
            lag = torch.where(versions >= 0, self.version - versions, -1)
            return _put(batch, {"lag": response_to_nested(lag, mask)})
        batch = super()._compute_old_log_prob(batch, metrics)
        data = _get(batch, ["latent_term", "response_mask"])
        density = response_from_nested(data["latent_term"], data["response_mask"])
        batch = _put(batch, {"old_log_density": density})
        metrics.update(parity(self._parity_sums(batch, versions == self.version)))
        stale = parity(self._parity_sums(batch, (versions >= 0) & (versions != self.version)))
        metrics["off_policy/text_gap_mean"] = stale.get("parity/text_gap_mean", 0.0)
        return batch

    @property
    def version(self) -> int:
        """The version of the weights behind the old log-probs: the step at whose end the rollout got them."""
        return self.global_steps - 1

    def _versions(self, batch: KVBatchMeta) -> torch.Tensor:
        """Returns the version of the weights that wrote each token, int64 ``[B, L]``; -1 in padding rows."""
        rows = _get(batch, ["extra_fields"])["extra_fields"]
        return token_versions(
            [
                [(-1, tag["response_len"])] if tag.get("is_padding", False) else row["segments"]
                for row, tag in zip(rows, batch.tags, strict=True)
            ]
        )

    def _parity_sums(self, batch: KVBatchMeta, compared: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compares the rollout's log-probs with the batch's ``old_log_probs`` at the tokens ``compared``, bool ``[B, L]``."""
        fields = _get(batch, ["responses", "rollout_log_probs", "old_log_probs"])
        rollout, actor = (fields[key].to_padded_tensor(padding=0.0) for key in ("rollout_log_probs", "old_log_probs"))
        return sums(rollout, actor, self._layout(fields["responses"]).roles, compared)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Upstream keeps only log-probs; the KL of latents also needs the reference's states at the feeding positions."""
        wanted = self.config.latent_loss.kl_coef > 0
        batch.extra_info["return_latent_states"] = wanted
        batch = super()._compute_ref_log_prob(batch, metrics)
        batch.extra_info["return_latent_states"] = False
        return _put(batch, {"ref_latent_states": _get(batch, ["latent_states"])["latent_states"]}) if wanted else batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Upstream (trainer_base.py) gives estimators only the summed reward; ours needs its parts and the slots.

        Upstream's KL in the reward and rollout correction are refused at the start (checks.py).
        """
        data = _get(batch, ["uid", "responses", "response_mask", "extra_fields"])
        mask = data["response_mask"].to_padded_tensor(padding=0)
        advantages = rollout_advantages(
            [row["reward_extra_info"] for row in data["extra_fields"]],
            list(data["uid"]),
            self.weights,
            mask,
            self._layout(data["responses"]).slots,
            by_std=self.config.algorithm.norm_adv_by_std_in_grpo,
            **self.config.advantage,
        )
        each = response_to_nested(advantages, data["response_mask"])
        return _put(batch, {"advantages": each, "returns": each})

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Upstream's metrics of an update are means; ours include sums, with those of parity if it was measured."""
        batch.extra_info["one_update"] = self._needs_old_pass(batch) is None
        batch = super()._update_actor(batch, metrics)
        divided = divide_parity_sums(divide_ratio_sums(metrics))
        metrics.clear()
        metrics.update(divided)
        return batch

    def _compute_metrics(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        rows = list(_get(_without_padding(batch), ["extra_fields"])["extra_fields"])
        self._require_parity(metrics)
        usage = [row["latent_usage"] for row in rows]
        metrics.update(reward_metrics([row["reward_extra_info"] for row in rows], usage))
        if not self.config.latent.spans:
            return
        metrics.update(usage_metrics(usage))
        if metrics["latents/trigger_collapse"]:
            share = metrics["latents/with_span"]
            log.warning(f"trigger collapse: {share:.1%} of answers open a latent span (fewer than {COLLAPSE:.0%})")

    def _require_parity(self, metrics: dict) -> None:
        """Raises RuntimeError, at the first step that measures parity, if it is bad; upstream would continue."""
        if not self.compared and metrics.get("parity/entries"):
            self.compared = True
            require_parity(metrics, self.config.parity.most_at_first)

    def _val_metrics_update(
        self,
        data_sources: list[str],
        sample_uids: list[str],
        infos: dict[str, list],
        sample_turns: list[int],
        expected_acc_counts: dict[tuple[str, str], int],
    ) -> dict[str, float]:
        """Upstream (trainer_base.py) counts a missing accuracy as wrong, and one NaN makes a whole source NaN. Here answers
        without a verdict are left out, and counted. The figures of an evaluation, by split, are added."""
        kept, counts = judged_rows(data_sources, sample_uids, infos, expected_acc_counts)
        left = {name: [values[i] for i in kept] for name, values in infos.items()}
        sources, uids = ([values[i] for i in kept] for values in (data_sources, sample_uids))
        metrics = super()._val_metrics_update(sources, uids, left, sample_turns, counts)
        return metrics | validation_metrics(infos) | {"val-aux/unjudged": len(data_sources) - len(kept)}

    def _layout(self, responses: torch.Tensor) -> Layout:
        """Returns the roles of ragged responses, padded to ``[B, L]``."""
        padded, latent = responses.to_padded_tensor(padding=-1), self.config.latent
        return response_layout(padded, self.latent.tokens, self.latent.max_latents, latent.min_latents)


def _data_parallel_size(workers: Any, mesh: str) -> int:
    """Returns the number of ranks that a batch is divided among."""
    if mesh not in workers._dispatch_info:
        workers._dispatch_info[mesh] = workers._query_dispatch_info(mesh)
    return max(workers._dispatch_info[mesh]) + 1


def _questions(batch: KVBatchMeta) -> list[str]:
    """Returns the uid of each row, the first part of its key."""
    return [key.split("_")[0] for key in batch.keys]


def _get(batch: KVBatchMeta, fields: list[str]) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)


def _put(batch: KVBatchMeta, fields: dict[str, torch.Tensor]) -> KVBatchMeta:
    return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch)))


def _without_padding(batch: KVBatchMeta) -> KVBatchMeta:
    kept = [(key, tag) for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    return KVBatchMeta(partition_id=batch.partition_id, keys=[key for key, _ in kept], tags=[tag for _, tag in kept])
