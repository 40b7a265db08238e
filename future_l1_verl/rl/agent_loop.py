"""Prepares rollouts for the trainer: attaches latents and computes rewards."""

import math
from functools import partial
from typing import Any

import ray
import torch
from torch import Tensor
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
from verl.utils.torch_dtypes import PrecisionType

from future_l1_verl.latents.checksum import checksum
from future_l1_verl.latents.spans import Layout, Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.format import well_formed
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.overlong import overlong
from future_l1_verl.rewards.repetition import repetition
from future_l1_verl.rewards.total import Rollout, group_rewards
from future_l1_verl.rewards.weights import PARTS
from future_l1_verl.rl import shared_prompt
from future_l1_verl.rl.group_barrier import GroupWorker
from future_l1_verl.rl.metrics import span_usage
from future_l1_verl.rl.settings import RewardSettings, judge_settings


class LatentAgentLoopOutput(AgentLoopOutput):
    multi_modal_inputs: dict[str, Any]
    """What the processor made of the prompt for the model, besides its ids: one dict for all answers to the prompt."""

    def as_dict(self) -> dict[str, Any]:
        """Upstream leaves extra fields in a dict per row; here latents become a separate field, ragged ``[slots, H]``."""
        output = super().as_dict()
        output["latents"] = output["extra_fields"].pop("latents")
        output["latents_checksum"] = torch.tensor([checksum(output["latents"])])
        return output


@register("latent_agent")
class LatentAgentLoop(SingleTurnAgentLoop):
    """Generates one answer. Upstream reads the frames of the prompt for each answer and processes them twice
    (single_turn_agent_loop.py, agent_loop.py); here the first answer does it once for all."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> LatentAgentLoopOutput:
        self.row = kwargs["index"]
        output = await super().run(sampling_params, **kwargs)
        return LatentAgentLoopOutput.model_construct(
            output.model_fields_set, **dict(output), multi_modal_inputs=self.multi_modal_inputs
        )

    async def process_multi_modal_info(self, messages: list[dict]) -> dict[str, Any]:
        return await shared_prompt.once("media", super().process_multi_modal_info, messages)

    async def ct_build_initial_tokens(self, messages: list[dict], mm_inputs_out: dict[str, Any], **media: Any) -> list[int]:
        """Upstream fills ``mm_inputs_out`` for SGLang, and stores it (single_turn_agent_loop.py); here it stays empty."""
        ids, self.multi_modal_inputs = await shared_prompt.once("prompt", self._processed, messages, **media)
        return ids

    async def _processed(self, messages: list[dict], **media: Any) -> tuple[list[int], dict[str, Any]]:
        """Upstream (agent_loop.py) cuts a text prompt that is too long; here it raises ValueError, naming the row."""
        inputs: dict[str, Any] = {}
        build = partial(self.continuous_token_builder.build_initial_tokens, messages, mm_inputs_out=inputs, **media)
        ids = await self.loop.run_in_executor(None, build)
        if len(ids) > self.prompt_length:
            limit = f"data.max_prompt_length is {self.prompt_length}"
            raise ValueError(f"the prompt of row {self.row} has {len(ids)} tokens, {limit}")
        inputs.pop("attention_mask", None)
        # Nearly all that a step stores is pixels. vLLM rounds them so as well (multimodal/processing/context.py).
        dtype = PrecisionType.to_dtype(self.rollout_config.dtype)
        return ids, {name: value.to(dtype) if name.startswith("pixel") else value for name, value in inputs.items()}


class LatentAgentLoopWorker(GroupWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latent = LatentSettings.from_config(self.model_config.hf_config)
        self.rewards = RewardSettings.read(self.config, "rewards")
        judge = judge_settings(self.config)
        self.judge = Judge(judge) if judge else None

    async def _run_prompt(self, prompt: dict, *args: Any, **kwargs: Any) -> None:
        shared_prompt.begin(prompt["uid"])
        await super()._run_prompt(prompt, *args, **kwargs)

    async def _agent_loop_postprocess(self, output: AgentLoopOutput, validate: bool, *, raw_prompt: Any, **row: Any) -> None:
        """Upstream (agent_loop_tq.py) also stores the chat with its frames, for its reward models; here it is left out."""
        await super()._agent_loop_postprocess(output, validate, **row)

    def _compute_multi_modal_inputs(self, output: LatentAgentLoopOutput, input_ids: Tensor) -> dict[str, Any]:
        """Upstream (agent_loop.py, same name) decodes each whole answer, processes its images for the actor, and stores them
        with it. Here only the first stored answer of a question has the pixels (training/engine.py)."""
        carries = shared_prompt.first("pixels")
        return {name: value for name, value in output.multi_modal_inputs.items() if carries or not name.startswith("pixel")}

    async def _assess(self, output: AgentLoopOutput, row: dict[str, Any]) -> Rollout:
        ids, layout = torch.tensor(output.response_ids), self._layout(output)
        said = ids[:-1] if len(ids) and ids[-1] == self.tokenizer.eos_token_id else ids
        lengths = (layout.spans[:, 1] - layout.spans[:, 0]).tolist()
        answer = answer_text(self.tokenizer.decode(said))
        settings, limit = self.rewards, self.config.data.max_response_length
        output.extra_fields["split"] = row["split"]
        return Rollout(
            grade=await assess(answer, row["question"], row["reward_model"]["ground_truth"], row["options"], self.judge),
            well_formed=well_formed(
                said, self.latent.tokens, self.latent.max_latents, self.tokenizer.decode, shape=settings.shape
            ),
            spans=output.extra_fields["latents"].split(lengths),
            repetition=repetition(ids[~layout.slots].tolist(), settings.repetition_ngram),
            overlong=overlong(len(ids), limit, min(settings.overlong_buffer, limit)),
        )

    def _reward(self, arrived: list[tuple[AgentLoopOutput, Rollout]]) -> None:
        rewards = group_rewards([rollout for _, rollout in arrived], self.rewards.weights, self.rewards.temperature)
        for i, (output, rollout) in enumerate(arrived):
            layout, counted = self._layout(output), bool(rewards.counted[i])
            output.reward_score = float(rewards.total[i])
            named = dict(zip(PARTS, rewards.parts[i].tolist(), strict=True))
            # verl's validation and the group filter look for "acc"; without a verdict there is none.
            named["acc"] = named.pop("accuracy") if counted else math.nan
            output.extra_fields["reward_extra_info"] = named | {
                "judged": float(counted),
                "parsed": float(rollout.grade is not None and rollout.grade.parsed),
                "split": output.extra_fields["split"],  # verl's validation passes on nothing else of a rollout
            }
            output.extra_fields["latent_usage"] = span_usage(layout, rollout.spans, rewards, i)
            output.response_mask = [int(free) for free in self._chosen(layout) & counted]

    def _layout(self, output: AgentLoopOutput) -> Layout:
        """Returns the layout of the response. Raises ValueError unless the engine returned one latent per slot."""
        latent = self.config.latent
        layout = response_layout(
            torch.tensor(output.response_ids), self.latent.tokens, self.latent.max_latents, latent.min_latents
        )
        slots, latents = int(layout.slots.sum()), len(output.extra_fields["latents"])
        if slots != latents:
            raise ValueError(f"a response has {slots} slots but the engine returned {latents} latents")
        return layout

    def _chosen(self, layout: Layout) -> Tensor:
        """Returns which entries have a likelihood (docs/concepts/spans.md): no forced ends; forced slots only by density."""
        likelihood = self.config.latent.likelihood != "none"
        return (layout.roles != Role.STOP_FORCED) & (likelihood | (layout.roles != Role.LATENT_FORCED))


class LatentAgentLoopManager(AgentLoopManagerTQ):
    """The agent-loop manager, chosen by ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(LatentAgentLoopWorker)
