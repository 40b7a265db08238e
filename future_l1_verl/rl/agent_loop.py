"""Rollouts on their way from the engine to the trainer: latents attached, group rewards given.

All rollouts of a prompt run in one worker process, so the group rewards (R_ctr needs every rollout of a prompt) are given
there, at a barrier, before TransferQueue and the group filter see a score.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
import transfer_queue as tq
from torch import Tensor
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.spans import Layout, Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.answer import judge_by_rule
from future_l1_verl.rewards.format import well_formed
from future_l1_verl.rewards.total import Rollout, Weights, group_rewards


class LatentAgentLoopOutput(AgentLoopOutput):
    def as_dict(self) -> dict[str, Any]:
        """Upstream leaves extra fields in a dict per row; latents become a field of their own, ragged ``[slots, H]``."""
        output = super().as_dict()
        output["latents"] = output["extra_fields"].pop("latents")
        output["latents_checksum"] = torch.tensor([checksum(output["latents"])])
        return output


@register("latent_agent")
class LatentAgentLoop(SingleTurnAgentLoop):
    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> LatentAgentLoopOutput:
        output = await super().run(sampling_params, **kwargs)
        if len(output.prompt_ids) > self.prompt_length:
            # Upstream shortens the answer instead (vllm_async_server.py:611).
            limit = f"data.max_prompt_length is {self.prompt_length}"
            raise ValueError(f"the prompt of row {kwargs['index']} has {len(output.prompt_ids)} tokens, {limit}")
        return LatentAgentLoopOutput.model_construct(output.model_fields_set, **dict(output))


@dataclass
class _Group:
    """The rollouts of one prompt that have arrived so far."""

    size: int
    outputs: list[AgentLoopOutput] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None


# AgentLoopWorkerTQ is a Ray actor class already (agent_loop_tq.py:52); this is the class it was made of.
_Worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class LatentAgentLoopWorker(_Worker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latent = LatentSettings.from_config(self.model_config.hf_config)
        self.weights = Weights(**self.config.rewards)
        self.groups: dict[str, _Group] = {}

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        rollout = self.config.actor_rollout_ref.rollout
        size = prompt.get("__rollout_n__", rollout.val_kwargs.n if trajectory["validate"] else rollout.n)
        self.groups[prompt["uid"]] = _Group(int(size))
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            del self.groups[prompt["uid"]]

    async def _run_agent_loop(self, sampling_params: dict, trajectory: dict, **kwargs: Any) -> Any:
        """A rollout that fails releases its siblings, which would wait for it for ever, and tells the trainer why.

        Upstream tells that it failed (agent_loop_tq.py:133), not why.
        """
        group = self.groups[kwargs["uid"]]
        try:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        except BaseException as error:
            if group.error is None:
                group.error = error
                partition = "val" if trajectory["validate"] else "train"
                await tq.async_kv_put(key=kwargs["uid"], partition_id=partition, tag={"error": repr(error)})
                group.complete.set()
            raise

    async def _agent_loop_postprocess(self, output: AgentLoopOutput, validate: bool, **kwargs: Any) -> None:
        group = self.groups[kwargs["uid"]]
        group.outputs.append(output)
        if len(group.outputs) == group.size:
            self._reward(group.outputs, kwargs)
            group.complete.set()
        await group.complete.wait()
        if group.error is not None:
            raise RuntimeError(f"another rollout of prompt {kwargs['uid']} failed") from group.error
        await super()._agent_loop_postprocess(output, validate, **kwargs)

    def _reward(self, outputs: list[AgentLoopOutput], row: dict[str, Any]) -> None:
        layouts = [self._layout(output) for output in outputs]
        rollouts = [self._rollout(output, layout, row) for output, layout in zip(outputs, layouts, strict=True)]
        parts = group_rewards(rollouts, self.weights)
        for output, layout, rollout, part in zip(outputs, layouts, rollouts, parts, strict=True):
            output.reward_score = part["reward"]
            output.extra_fields["reward_extra_info"] = {key: value for key, value in part.items() if key != "reward"} | {
                "parsed": float(rollout.outcome.value != "unparsed"),
                "spans": float(len(rollout.spans)),
                "latents": float(layout.slots.sum()),
                "budget_ends": float((layout.roles == Role.STOP_FORCED).sum()),
            }
            output.response_mask = [int(free) for free in self._chosen(layout)]

    def _layout(self, output: AgentLoopOutput) -> Layout:
        """Raises ValueError unless the engine brought one latent per slot."""
        latent = self.config.latent
        layout = response_layout(
            torch.tensor(output.response_ids), self.latent.tokens, self.latent.max_latents, latent.min_latents
        )
        slots, latents = int(layout.slots.sum()), len(output.extra_fields["latents"])
        if slots != latents:
            raise ValueError(f"a response has {slots} slots but the engine returned {latents} latents")
        return layout

    def _rollout(self, output: AgentLoopOutput, layout: Layout, row: dict[str, Any]) -> Rollout:
        ids = torch.tensor(output.response_ids)
        if len(ids) and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        lengths = (layout.spans[:, 1] - layout.spans[:, 0]).tolist()
        return Rollout(
            outcome=judge_by_rule(self.tokenizer.decode(ids), row["reward_model"]["ground_truth"], row["options"]),
            well_formed=well_formed(ids, self.latent.tokens, self.latent.max_latents, self.tokenizer.decode),
            spans=output.extra_fields["latents"].split(lengths),
        )

    def _chosen(self, layout: Layout) -> Tensor:
        """Entries with a likelihood (design.md, role table): a forced end has none, a forced slot has its density or none."""
        likelihood = self.config.latent.likelihood != "none"
        return (layout.roles != Role.STOP_FORCED) & (likelihood | (layout.roles != Role.LATENT_FORCED))


class LatentAgentLoopManager(AgentLoopManagerTQ):
    """Chosen by ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(LatentAgentLoopWorker)
