"""A reward function for EasyR1, sequential or batch.

    worker.reward.reward_function=.../future_l1_verl/rewards/adapters/easyr1.py:compute_score
    worker.reward.reward_function_kwargs.reason_tag=think

EasyR1 passes only the reply and the right answer: there are no options, and no question to ask a judge about.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from future_l1_verl.rewards.score import score
from future_l1_verl.rewards.scoring import Scoring
from future_l1_verl.rewards.waiting import gather, wait

Scores = dict[str, float | None]


def compute_score(reward_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], **settings: Any) -> Scores | list[Scores]:
    """Returns the scores of one input, or of each in a list, with EasyR1's names ``overall`` and ``accuracy``.

    Raises what `score` raises, and ValueError for settings that `Scoring` refuses or that name a judge.
    """
    scoring = Scoring.from_keywords(settings)
    if scoring.judge_settings:
        raise ValueError("EasyR1 gives no question to ask a judge about")
    inputs = [reward_inputs] if isinstance(reward_inputs, Mapping) else reward_inputs
    asked = [
        score(each["response"], each["ground_truth"], row=f"input {number}", scoring=scoring)
        for number, each in enumerate(inputs)
    ]
    scored = wait(gather(asked))
    named = [{"overall": each.pop("score"), "accuracy": each.pop("acc")} | each for each in scored]
    return named[0] if isinstance(reward_inputs, Mapping) else named
