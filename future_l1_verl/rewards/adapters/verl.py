"""Reward functions for verl's managers.

    reward.custom_reward_function.path=pkg://future_l1_verl.rewards.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.repetition=0.1

The managers ``naive``, ``dapo``, ``gdpo`` and ``rate_limited`` call `compute_score`. ``remote``, and ``naive`` and ``dapo`` of
verl's legacy trainer, call `compute_score_sync`; legacy ``batch`` calls `compute_scores`, legacy ``prime`` `compute_number`.
Settings are the fields of `Scoring`. recipes/stock_verl_rewards.sh is a complete example.

``rate_limited``, ``prime`` and time limits score 0 if a function raises an Exception. These raise Unscored, which is not one.
"""

from collections.abc import Sequence
from typing import Any

from future_l1_verl.rewards import score
from future_l1_verl.rewards.adapters.unscored import never_zero, number
from future_l1_verl.rewards.waiting import gather, wait

Scores = dict[str, float | None]


async def compute_score(*args: Any, **keywords: Any) -> Scores:
    """Calls `score.compute_score`; raises Unscored in place of any exception."""
    with never_zero():
        return await score.compute_score(*args, **keywords)


def compute_score_sync(*args: Any, **keywords: Any) -> Scores:
    """Returns what `compute_score` does, for managers that cannot await a coroutine."""
    with never_zero():
        return score.compute_score_sync(*args, **keywords)


def compute_number(*args: Any, **keywords: Any) -> float:
    """Returns only the ``score`` of `compute_score`: ``prime`` accepts nothing else, and treats None as 0."""
    return number(compute_score_sync(*args, **keywords)["score"])


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any],
    **keywords: Any,
) -> list[Scores]:
    """Returns the result of `compute_score` for each row of a batch."""
    rows = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    with never_zero():
        return wait(gather(score.compute_score(*row, **keywords) for row in rows))
