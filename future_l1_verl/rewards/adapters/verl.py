"""Reward functions for verl's managers.

    reward.custom_reward_function.path=pkg://future_l1_verl.rewards.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.repetition=0.1

``naive``, ``dapo``, ``gdpo`` and ``rate_limited`` take `compute_score`; ``remote`` and the managers of verl's legacy trainer
``naive`` and ``dapo`` `compute_score_sync`; legacy ``batch`` `compute_scores`; legacy ``prime`` `compute_number`. Settings are
the fields of `Scoring`. recipes/stock_verl_rewards.sh is a whole job.

``rate_limited``, ``prime`` and time limits score 0 where a function raises an Exception. These raise Unscored, which is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from future_l1_verl.rewards import score
from future_l1_verl.rewards.adapters.unscored import never_zero, number
from future_l1_verl.rewards.waiting import gather, wait

Scores = dict[str, float | None]


async def compute_score(*args: Any, **keywords: Any) -> Scores:
    """`score.compute_score`; raises Unscored for all that it raises."""
    with never_zero():
        return await score.compute_score(*args, **keywords)


def compute_score_sync(*args: Any, **keywords: Any) -> Scores:
    """`compute_score` for managers that call no coroutines."""
    with never_zero():
        return score.compute_score_sync(*args, **keywords)


def compute_number(*args: Any, **keywords: Any) -> float:
    """The ``score`` of `compute_score` alone: ``prime`` takes nothing else, and None for 0."""
    return number(compute_score_sync(*args, **keywords)["score"])


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any],
    **keywords: Any,
) -> list[Scores]:
    """`compute_score` of each row of a batch."""
    rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    with never_zero():
        return wait(gather(score.compute_score(*row, **keywords) for row in rows))
