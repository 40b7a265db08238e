"""The rewards of a single reply as a reward function of a stock verl job, for any text model.

    reward.custom_reward_function.path=pkg://future_l1_verl.rewards.score
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.repetition=0.1

Rows are verl's own: ``reward_model.ground_truth``, and in ``extra_info`` the ``question`` (for the judge) and the ``options``
of a multiple choice. recipes/stock_verl_rewards.sh is a whole job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, TypeVar

from future_l1_verl.rewards.accuracy import assess
from future_l1_verl.rewards.answer import answer_text, truth_text
from future_l1_verl.rewards.format import has_shape
from future_l1_verl.rewards.judge import Judge, JudgeSettings
from future_l1_verl.rewards.options import given, require_truth
from future_l1_verl.rewards.overlong import overlong as overlong_penalty
from future_l1_verl.rewards.repetition import repetition as repetition_penalty
from future_l1_verl.rewards.total import Weights

T = TypeVar("T")


class NoVerdict(RuntimeError):
    """The judge gave no usable verdict. verl logs it, and trains on the other rollouts of the prompt."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    accuracy: float = Weights.accuracy,
    format: float = Weights.format,
    repetition: float = Weights.repetition,
    overlong: float = Weights.overlong,
    repetition_ngram: int = 20,
    tokenizer: str | None = None,
    max_response_length: int | None = None,
    overlong_buffer: int = 512,
    judge: Mapping[str, Any] | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **unknown: Any,
) -> dict[str, float]:
    """``score``, the weighted sum of the parts, and the parts ``acc, format, repetition, overlong`` and ``parsed``.

    The keyword arguments are verl's ``reward_kwargs``: four weights; the n of repeated n-grams of words; for ``overlong`` the
    policy's ``tokenizer`` (a directory), ``max_response_length`` and the length of the buffer in tokens; and the fields of
    `JudgeSettings`. What stands in ``<answer>`` is graded, or the whole reply if it has no such tag. verl itself gives
    ``reward_router_address`` and ``reward_model_tokenizer`` where a job has a reward model; they are not used.

    Raises NoVerdict if the judge fails; JudgeUnavailable if it fails too often, and from then on, so that verl runs out of
    rollouts and ends; ValueError if ``overlong`` has a weight but not what it needs, on a keyword that is not known, and,
    naming the row and the field, on a truth or options that no answer can be compared with.
    """
    _refuse_unknown(unknown, compute_score.__kwdefaults__, "")
    weights = {"accuracy": accuracy, "format": format, "repetition": repetition, "overlong": overlong}
    for name, value in weights.items():
        if type(value) not in (int, float):
            raise ValueError(f"{name} must be a number, not {value!r}")
    if not isinstance(judge, Mapping | None):
        raise ValueError(f"judge must be a mapping of the fields of JudgeSettings, not {judge!r:.80}")
    question, truth, options = _row(data_source, ground_truth, {} if extra_info is None else extra_info)
    answer = answer_text(solution_str) if "<answer>" in solution_str else solution_str.strip() or None
    _refuse_unknown(judge or {}, [field.name for field in fields(JudgeSettings)], "judge.")
    asked = _judge(JudgeSettings(**{"model": ""} | dict(judge))) if judge and judge.get("url") else None
    grade = await assess(answer, question, truth, options, asked)
    if grade is None:
        raise NoVerdict(f"no verdict on {answer!r}")
    penalty = 0.0
    if overlong > 0:
        if tokenizer is None or max_response_length is None:
            raise ValueError("a weight on overlong needs reward_kwargs.tokenizer and reward_kwargs.max_response_length")
        length = len(_tokenizer(tokenizer)(solution_str, add_special_tokens=False)["input_ids"])
        penalty = overlong_penalty(length, max_response_length, overlong_buffer)
    parts = {
        "accuracy": float(grade.correct),
        "format": float(has_shape(solution_str, "text_only")),
        "repetition": repetition_penalty(solution_str.split(), repetition_ngram),
        "overlong": penalty,
    }
    score = sum(weights[name] * value for name, value in parts.items())
    return {"score": score, "acc": parts.pop("accuracy")} | parts | {"parsed": float(grade.parsed)}


def _row(data_source: str, ground_truth: object, extra_info: object) -> tuple[str, str, list[str]]:
    """Question, right answer and options of a row. Raises ValueError naming row and field."""
    if not isinstance(extra_info, Mapping):
        raise ValueError(f"a row of {data_source}: extra_info must be a mapping, not {extra_info!r:.80}")
    row = f"row {extra_info['index']} of {data_source}" if "index" in extra_info else f"a row of {data_source}"
    question = "" if extra_info.get("question") is None else extra_info["question"]
    if not isinstance(question, str):
        raise ValueError(f"{row}: extra_info.question must be a text, not {question!r:.80}")
    options = _field(f"{row}: extra_info.options", given, extra_info.get("options"))
    truth = _field(f"{row}: ground_truth", truth_text, ground_truth)
    if options:
        _field(f"{row}: ground_truth", require_truth, truth, options)
    return question, truth, options


def _field(name: str, rule: Callable[..., T], *values: Any) -> T:
    try:
        return rule(*values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _refuse_unknown(names: Iterable[str], known: Collection[str], prefix: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(f"unknown keyword '{prefix}{name}'" + (f"; did you mean '{prefix}{near[0]}'?" if near else ""))


@lru_cache
def _judge(settings: JudgeSettings) -> Judge:
    return Judge(settings)


@lru_cache
def _tokenizer(directory: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)
