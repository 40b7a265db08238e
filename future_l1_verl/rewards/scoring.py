"""The settings of `score`, as given in a trainer's config."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.shape import TEXT_SHAPES, Tags
from future_l1_verl.rewards.weights import Weights
from future_l1_verl.wording import did_you_mean


def _refuse_unknown(names: Iterable[str], known: Collection[str], prefix: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown keyword '{prefix}{name}'{did_you_mean(name, known, prefix)}")


@dataclass(frozen=True)
class Scoring:
    r"""The settings of `score`.

    ``accuracy, format, repetition, overlong`` are the weights of the parts. ``shape`` is the shape that ``format`` asks for,
    ``text_only`` or ``boxed`` (see `has_shape`), with ``<reason_tag>`` and ``<answer_tag>``. ``repetition_ngram`` is the n of
    repeated n-grams of words. A weight on ``overlong`` needs the policy's ``tokenizer`` (a directory) and
    ``max_response_length``, in tokens like ``overlong_buffer``. ``judge``, the fields of `JudgeSettings`, is asked about open
    answers. ``no_verdict`` is the score of a reply whose verdict failed: a number, None, or ``"raise"`` for `NoVerdict`.

    Raises ValueError naming the first field that has a wrong type or value, or lacks a field that it needs.
    """

    accuracy: float = Weights.accuracy
    format: float = Weights.format
    repetition: float = Weights.repetition
    overlong: float = Weights.overlong
    shape: str = "text_only"
    reason_tag: str = Tags.reason
    answer_tag: str = Tags.answer
    repetition_ngram: int = 20
    tokenizer: str | None = None
    max_response_length: int | None = None
    overlong_buffer: int = 512
    judge: Mapping[str, Any] | None = None
    no_verdict: str | float | None = "raise"

    def __post_init__(self) -> None:
        for name in ("accuracy", "format", "repetition", "overlong"):
            if type(getattr(self, name)) not in (int, float):
                raise ValueError(f"{name} must be a number, not {getattr(self, name)!r}")
        if self.shape not in TEXT_SHAPES:
            raise ValueError(f"shape is one of {', '.join(TEXT_SHAPES)}, not {self.shape!r}")
        if self.no_verdict not in ("raise", None) and type(self.no_verdict) not in (int, float):
            raise ValueError(f"no_verdict is raise, a number or null, not {self.no_verdict!r}")
        if self.overlong > 0 and (self.tokenizer is None or self.max_response_length is None):
            raise ValueError("a weight on overlong needs tokenizer and max_response_length")
        if not isinstance(self.judge, Mapping | None):
            raise ValueError(f"judge must be a mapping of the fields of JudgeSettings, not {self.judge!r:.80}")
        _refuse_unknown(self.judge or {}, [field.name for field in fields(JudgeSettings)], "judge.")
        _ = self.tags, self.judge_settings  # raise for values that these refuse

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> Scoring:
        """Returns the settings in keywords. Raises ValueError for an unknown keyword or a value that is not valid."""
        _refuse_unknown(keywords, [field.name for field in fields(cls)], "")
        return cls(**keywords)

    @property
    def tags(self) -> Tags:
        return Tags(self.reason_tag, self.answer_tag)

    @property
    def judge_settings(self) -> JudgeSettings | None:
        """The settings of the judge; None without a ``judge.url``."""
        return JudgeSettings(**{"model": ""} | dict(self.judge)) if self.judge and self.judge.get("url") else None


PAPER = Scoring()
"""The weights of the paper (section 4), without a judge."""
