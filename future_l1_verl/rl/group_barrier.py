"""Collects all rollouts of a prompt before any of them is stored.

All rollouts of a prompt run in one worker process, so what depends on the whole group (R_ctr needs every rollout of a prompt)
is computed there, before TransferQueue and the group filter see a score.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ


@dataclass
class _Group:
    """The rollouts of one prompt that have arrived so far, each with its assessment."""

    size: int
    arrived: list[tuple[AgentLoopOutput, Any]] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None


# AgentLoopWorkerTQ is a Ray actor class already (agent_loop_tq.py); this is the class behind it.
_Worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class GroupWorker(_Worker):
    """verl's worker, whose rollouts are scored one by one by `_assess` and then together by `_reward`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups: dict[str, _Group] = {}

    async def _assess(self, output: AgentLoopOutput, row: dict[str, Any]) -> Any:
        """Returns the assessment of a single rollout; ``row`` is its row of the data set."""
        raise NotImplementedError

    def _reward(self, arrived: list[tuple[AgentLoopOutput, Any]]) -> None:
        """Sets ``reward_score`` and ``extra_fields["reward_extra_info"]`` of all rollouts of a prompt."""
        raise NotImplementedError

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        rollout = self.config.actor_rollout_ref.rollout
        size = prompt.get("__rollout_n__", rollout.val_kwargs.n if trajectory["validate"] else rollout.n)
        self.groups[prompt["uid"]] = _Group(int(size))
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
        finally:
            del self.groups[prompt["uid"]]

    async def _run_agent_loop(self, sampling_params: dict, trajectory: dict, **kwargs: Any) -> Any:
        """If a rollout fails, releases the others of its prompt, which wait for it, and tells the trainer why.

        Upstream (agent_loop_tq.py) reports the failure without the reason.
        """
        group = self.groups[kwargs["uid"]]
        try:
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)
        except BaseException as error:
            if group.error is None:
                group.error = error
                group.complete.set()
                partition = "val" if trajectory["validate"] else "train"
                said = f"{type(error).__name__}: {error}"
                await tq.async_kv_put(key=kwargs["uid"], partition_id=partition, tag={"error": said})
            raise

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        """Upstream (agent_loop.py) scores each rollout as soon as it ends; the judge is asked then, while other rollouts are
        still decoding (docs/differences.md, row 24). Here the rollout then also waits for its group."""
        group, output = self.groups[kwargs["uid"]], outputs[-1]
        group.arrived.append((output, await self._assess(output, kwargs)))
        if len(group.arrived) == group.size:
            self._reward(group.arrived)
            group.complete.set()
        await group.complete.wait()
        if group.error is not None:
            raise RuntimeError(f"another rollout of prompt {kwargs['uid']} failed: {group.error!r}") from group.error
