"""R_acc of open answers by an LLM judge.

``client`` asks it, ``verdict`` reads its replies, ``cache`` keeps them, ``prompt.txt`` is what it is asked, and
``python -m future_l1_verl.rewards.judge --check URL`` (``check``) says whether a server is fit to judge.
"""

from future_l1_verl.rewards.judge.client import Counts, Judge, JudgeSettings, JudgeUnavailable, read_prompt
from future_l1_verl.rewards.judge.verdict import parse_verdict

__all__ = ["Counts", "Judge", "JudgeSettings", "JudgeUnavailable", "parse_verdict", "read_prompt"]
