r"""Scores a single reply, for any text model and any trainer; `adapters` has functions that trainers can call.

await score("<reason>3 and 4</reason><answer>7</answer>", "7")
compute_score_sync("sums", r"<think>3 and 4</think> \boxed{7}", 7, shape="boxed", reason_tag="think")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import truth_text
from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.options import given, require_truth
from future_l1_verl.rewards.overlong import overlong as overlong_penalty
from future_l1_verl.rewards.repetition import repetition as repetition_penalty
from future_l1_verl.rewards.reply import said
from future_l1_verl.rewards.scoring import PAPER, Scoring
from future_l1_verl.rewards.shape import has_shape
from future_l1_verl.rewards.waiting import wait

if TYPE_CHECKING:
    from future_l1_verl.rewards.judge.client import Judge

T = TypeVar("T")

# Fails at import: trainers import this module before they train, and score the first reply much later.
if find_spec("math_verify") is None:
    raise ImportError("rewards need math_verify: pip install math-verify")


class NoVerdict(RuntimeError):
    """The judge gave no usable verdict, so a reply is neither right nor wrong."""


async def score(
    reply: str,
    truth: object,
    *,
    question: object = None,
    options: object = None,
    row: str = "the row",
    scoring: Scoring = PAPER,
) -> dict[str, float | None]:
    """Returns ``score``, the weighted sum of the parts; the parts ``acc, format, repetition_penalty, overlong_penalty``;
    ``parsed`` (the answer names one definite thing); ``verdict`` (1, or 0 if the judge failed; ``acc`` is then NaN).

    ``truth`` is a text or a number; with ``options`` (see options.py) the question is multiple choice. The judge is asked about
    the ``question``. ``row`` is the name of the row in errors.

    Raises NoVerdict if the judge fails and ``scoring.no_verdict`` is "raise"; JudgeUnavailable if it failed too often, now or
    before; ValueError, naming row and field, if the right answer, the options or the question cannot be used.
    """
    choices = _field(f"{row}: options", given, options)
    right = _field(f"{row}: ground_truth", truth_text, truth)
    if choices:
        _field(f"{row}: ground_truth", require_truth, right, choices)
    if not isinstance(question, str | None):
        raise ValueError(f"{row}: question must be a text, not {question!r:.80}")
    judge = _judge(scoring.judge_settings, os.getpid()) if scoring.judge_settings else None
    if judge is not None and not question and not (choices and judge.settings.mode == "rule_first"):
        raise ValueError(f"{row}: question is missing, and the judge is asked about it")
    grade = await assess(said(reply, scoring.tags), question or "", right, choices, judge)
    parts = {
        "format": float(has_shape(reply, scoring.shape, scoring.tags)),
        "repetition_penalty": repetition_penalty(reply.split(), scoring.repetition_ngram),
        "overlong_penalty": _overlong(reply, scoring),
    }
    if grade is None:
        if isinstance(scoring.no_verdict, str):
            raise NoVerdict(f"{row}: no verdict on {said(reply, scoring.tags)!r:.200}")
        return {"score": scoring.no_verdict, "acc": float("nan"), **parts, "parsed": 1.0, "verdict": 0.0}
    weights = (scoring.format, scoring.repetition, scoring.overlong)
    total = scoring.accuracy * grade.correct + sum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
    return {"score": total, "acc": float(grade.correct), **parts, "parsed": float(grade.parsed), "verdict": 1.0}


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **keywords: Any,
) -> dict[str, float | None]:
    """Calls `score` with verl's names: ``extra_info`` has ``question`` and ``options``, ``keywords`` are fields of `Scoring`.

    verl passes ``reward_router_address`` and ``reward_model_tokenizer`` if a job has a reward model; they are not used.
    """
    scoring = Scoring.from_keywords(keywords)
    extra = {} if extra_info is None else extra_info
    if not isinstance(extra, Mapping):
        raise ValueError(f"a row of {data_source}: extra_info must be a mapping, not {extra!r:.80}")
    row = f"row {extra['index']} of {data_source}" if "index" in extra else f"a row of {data_source}"
    question, options = extra.get("question"), extra.get("options")
    return await score(solution_str, ground_truth, question=question, options=options, row=row, scoring=scoring)


def compute_score_sync(*args: Any, **keywords: Any) -> dict[str, float | None]:
    """Returns what `compute_score` does, for a caller that is not a coroutine."""
    return wait(compute_score(*args, **keywords))


def _overlong(reply: str, scoring: Scoring) -> float:
    if not scoring.overlong > 0 or scoring.max_response_length is None:  # `Scoring` refuses a weight without a length
        return 0.0
    length = len(_tokenizer(scoring.tokenizer)(reply, add_special_tokens=False)["input_ids"])
    return overlong_penalty(length, scoring.max_response_length, scoring.overlong_buffer)


def _field(name: str, rule: Callable[..., T], *values: Any) -> T:
    try:
        return rule(*values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@lru_cache
def _judge(settings: JudgeSettings, process: int) -> Judge:
    """Returns the judge of a process: a fork must not share connections or the open file of verdicts."""
    from future_l1_verl.rewards.judge.client import Judge

    return Judge(settings)


@lru_cache
def _tokenizer(directory: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)
