"""A reward function for TRL's GRPOTrainer and its relatives.

trainer = GRPOTrainer(..., reward_funcs=reward(truth="solution", shape="boxed", reason_tag="think"))
"""

from collections.abc import Callable, Sequence
from typing import Any

from future_l1_verl.rewards.adapters.messages import Chat, text_of
from future_l1_verl.rewards.score import score
from future_l1_verl.rewards.scoring import Scoring
from future_l1_verl.rewards.waiting import gather, wait


def reward(
    truth: str = "solution", question: str = "question", options: str = "options", **settings: Any
) -> Callable[..., list[float | None]]:
    """Returns a function of prompts, completions and the columns ``truth``, ``question`` and ``options`` of the data set.

    The column ``truth`` is required. Without ``question`` the judge is asked about the prompt, or its last user message. With
    ``no_verdict=None`` TRL 1.16 leaves out a reply without a verdict; do not use it with versions that count a missing reward
    as 0. Raises ValueError for settings that `Scoring` refuses; the function raises KeyError if the column is missing, and
    what `score` raises.
    """
    scoring = Scoring.from_keywords(settings)

    def future_l1(prompts: Sequence[Chat], completions: Sequence[Chat], **columns: Any) -> list[float | None]:
        if truth not in columns:
            raise KeyError(f"the data set has no column {truth!r} of right answers; name yours with truth=")
        questions = columns.get(question) or [text_of(prompt, "user") for prompt in prompts]
        choices = columns.get(options) or [None] * len(completions)
        replies = [text_of(completion, "assistant") for completion in completions]
        scored = [
            score(reply, right, question=asked, options=given, row=f"completion {number}", scoring=scoring)
            for number, (reply, right, asked, given) in enumerate(zip(replies, columns[truth], questions, choices, strict=True))
        ]
        return [each["score"] for each in wait(gather(scored))]

    return future_l1
