"""An environment of one turn for SkyRL-gym.

    skyrl_gym.register(id="future_l1", entry_point="future_l1_verl.rewards.adapters.skyrl:FutureL1Env")

Rows have ``reward_spec.ground_truth``, and in ``extra_info`` the ``question`` and the ``options``. The section
``environment.skyrl_gym.future_l1`` has the fields of `Scoring`.
"""

from collections.abc import Mapping
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from future_l1_verl.rewards.score import compute_score_sync
from future_l1_verl.rewards.scoring import Scoring


class FutureL1Env(BaseTextEnv):
    """The environment. Raises ValueError for settings that `Scoring` refuses, and KeyError for a row without a right answer."""

    def __init__(self, env_config: Mapping[str, Any] | None = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.settings, self.row = dict(env_config or {}), extras or {}
        Scoring.from_keywords(self.settings)
        self.truth = self.row["reward_spec"]["ground_truth"]

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Returns the score of the reply ``action``, with its parts as metadata. Raises what `score` raises."""
        source = str(self.row.get("data_source", "future_l1"))
        scored = compute_score_sync(source, action, self.truth, self.row.get("extra_info"), **self.settings)
        return BaseTextEnvStepOutput(observations=[], reward=scored["score"], done=True, metadata=scored)
