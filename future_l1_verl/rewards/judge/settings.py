"""The settings of the judge, and the error of an unavailable judge. Needs only Python."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_OURS = ("model", "messages", "stream")


@dataclass(frozen=True)
class JudgeSettings:
    """The settings of the judge. Raises ValueError naming a field that is not valid, ModuleNotFoundError without openai.

    ``url`` is the part before ``/chat/completions``; ``mode`` says whether a rule decides first (``rule_first``) or only the
    judge (``judge_only``); ``prompt`` is a file with ``{question}``, ``{truth}`` and ``{answer}``, None for ours;
    ``concurrency`` bounds the requests in flight; ``timeout`` is in seconds per attempt; ``backoff`` is the pause in seconds
    before the second attempt, doubled before each further one up to 30 and shortened at random by up to half; ``cache`` is a
    file for the processes of one machine, None for the memory of this process; ``max_failure_rate`` is the share of failed
    verdicts above which the judge counts as unavailable; ``request`` has further fields of each request, as JSON values, and
    None removes a field (``{"max_tokens": None, "max_completion_tokens": 512}``).
    """

    url: str
    model: str
    mode: str = "rule_first"
    prompt: str | None = None
    concurrency: int = 64
    timeout: float = 20.0
    attempts: int = 5
    backoff: float = 0.5
    max_tokens: int = 64
    api_key_file: str | None = None
    cache: str | None = None
    max_failure_rate: float = 0.1
    request: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if find_spec("openai") is None:
            raise ModuleNotFoundError("a judge is asked by openai: pip install openai", name="openai")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, not {self.url!r}")
        if not self.model:
            raise ValueError("model must be named")
        if self.mode not in ("rule_first", "judge_only"):
            raise ValueError(f"mode must be rule_first or judge_only, not {self.mode!r}")
        for name in ("concurrency", "attempts", "max_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        for name in ("timeout", "backoff"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        if not 0 <= self.max_failure_rate <= 1:
            raise ValueError(f"max_failure_rate must be in [0, 1], not {self.max_failure_rate!r}")
        object.__setattr__(self, "request", _json_object(self.request))


def _json_object(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy made of dicts, lists and JSON values. Raises ValueError if the request has values of other types."""
    if not isinstance(request, Mapping) or any(name in _OURS for name in request):
        raise ValueError(f"request must be a mapping of further fields without {', '.join(_OURS)}, not {request!r}")
    try:
        return json.loads(json.dumps(request, default=lambda each: dict(each) if isinstance(each, Mapping) else list(each)))
    except TypeError as error:
        raise ValueError(f"request must have JSON values, not {request!r}") from error


def read_prompt(path: str | None) -> str:
    """Returns the prompt template in a file, or ours. Raises ValueError if it lacks a placeholder."""
    file = Path(path) if path is not None else Path(__file__).with_name("prompt.txt")
    template = file.read_text(encoding="utf-8")
    for name in ("question", "truth", "answer"):
        if f"{{{name}}}" not in template:
            raise ValueError(f"{file}: the prompt has no {{{name}}}")
    return template


class JudgeUnavailable(RuntimeError):
    """The judge refuses requests, or too many verdicts fail; the message has the number, the reasons and the last error."""
