"""Reward functions for verifiers and prime-rl.

rubric = vf.Rubric(funcs=[reward(reason_tag="think")])                    # verifiers up to 0.2

class Sums(vf.Task[SumsData]):                                            # verifiers.v1
    correct = vf.reward(task_reward(reason_tag="think"))
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from future_l1_verl.rewards.adapters.messages import Chat, text_of
from future_l1_verl.rewards.adapters.unscored import never_zero, number
from future_l1_verl.rewards.score import score
from future_l1_verl.rewards.scoring import Scoring

Reward = Callable[..., Coroutine[Any, Any, float | None]]


def reward(**settings: Any) -> Reward:
    """Returns a function for a Rubric, of ``completion``, ``answer`` and ``info`` (with ``question`` and ``options``).

    Raises ValueError for settings that `Scoring` refuses. The function raises Unscored, since a Rubric scores any Exception 0.
    """
    scoring = Scoring.from_keywords(settings)

    async def future_l1(completion: Chat, answer: Any, info: Mapping[str, Any] | None = None) -> float:
        given = info or {}
        with never_zero():
            reply = text_of(completion, "assistant")
            scored = await score(reply, answer, question=given.get("question"), options=given.get("options"), scoring=scoring)
        return number(scored["score"])

    return future_l1


def task_reward(**settings: Any) -> Reward:
    """Returns a method for a ``verifiers.v1.Task`` whose data has ``answer`` and may have ``question`` and ``options``.

    Raises ValueError for settings that `Scoring` refuses. The method raises what `score` raises; the rollout then has an error.
    """
    scoring = Scoring.from_keywords(settings)

    async def future_l1(self: Any, trace: Any) -> float | None:
        question, options = getattr(self.data, "question", None), getattr(self.data, "options", None)
        return (await score(trace.last_reply, self.data.answer, question=question, options=options, scoring=scoring))["score"]

    return future_l1
