"""R_ctr and R_div on top of whatever scores a stock verl job, by one key:

    +actor_rollout_ref.rollout.agent.agent_loop_manager_class=future_l1_verl.rl.stock_group_rewards.GroupRewardManager

Each rollout is scored by verl's own reward loop first; its ``acc`` says whether it is right. The group parts are those of the
latents that its agent loop has left in ``extra_fields["latents"]``, one row ``[H]`` per slot; a rollout without has none, and
gets nothing. The weights are the paper's; a section ``rewards`` (``+rewards.contrastive=...``) changes them. To train on
latents, their actor has to see them: that is ``python -m future_l1_verl.rl``, which gives these rewards itself.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.latent import Case
from future_l1_verl.rewards.total import Rollout, group_rewards
from future_l1_verl.rewards.weights import LATENT_PARTS, PARTS, Weights
from future_l1_verl.rl.group_barrier import GroupWorker, Unscored


class GroupRewardWorker(GroupWorker):
    async def _assess(self, output: AgentLoopOutput, row: dict[str, Any]) -> Rollout:
        """Scores the rollout in verl's own reward loop. Raises Unscored if that fails: verl trains on its siblings alone."""
        try:
            await super(GroupWorker, self)._compute_score([output], row)
        except ray.exceptions.RayTaskError as error:
            raise Unscored(str(error)) from error
        correct = output.extra_fields["reward_extra_info"]["acc"] > 0
        return Rollout(Grade(bool(correct), True), well_formed=False, spans=self._spans(output))

    def _spans(self, output: AgentLoopOutput) -> list[torch.Tensor]:
        latents = output.extra_fields.get("latents")
        if latents is None:
            return []
        settings = LatentSettings.from_config(self.model_config.hf_config)
        layout = response_layout(torch.tensor(output.response_ids), settings.tokens, settings.max_latents)
        return list(latents.split((layout.spans[:, 1] - layout.spans[:, 0]).tolist()))

    def _reward(self, arrived: list[tuple[AgentLoopOutput, Rollout]]) -> None:
        section = self.config.get("rewards") or {}
        weights = {part: section.get(part, getattr(Weights, part)) for part in LATENT_PARTS}
        rewards = group_rewards([rollout for _, rollout in arrived], Weights(**weights))
        for i, (output, _) in enumerate(arrived):
            parts = {part: float(rewards.parts[i, PARTS.index(part)]) for part in LATENT_PARTS}
            output.reward_score += sum(weights[part] * value for part, value in parts.items())
            defined = {"contrastive_defined": float(rewards.case[i] != Case.UNDEFINED)}
            output.extra_fields["reward_extra_info"] |= parts | defined | {"diversity_defined": float(rewards.diverse[i])}


class GroupRewardManager(AgentLoopManagerTQ):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupRewardWorker)
