"""The reward function of stock verl jobs."""

import asyncio
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chat_server import Server, says, serving
from verl.trainer.ppo.reward import get_custom_reward_fn

from future_l1_verl.rewards import score
from future_l1_verl.rewards.judge.settings import JudgeSettings
from future_l1_verl.rewards.score import NoVerdict, compute_score, compute_score_sync
from future_l1_verl.rewards.waiting import wait
from future_l1_verl.toy import tiny_text

GOOD = "<reason>3 and 4</reason><answer>7</answer>"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def scored(reply: str, truth: str = "7", extra: dict | None = None, **kwargs) -> dict[str, float]:
    return asyncio.run(compute_score("sums", reply, truth, extra or {}, **kwargs))


def test_the_score_is_the_weighted_sum_of_its_parts() -> None:
    parts = scored(GOOD, accuracy=0.5, format=0.25)
    penalties = {"repetition_penalty": 0.0, "overlong_penalty": 0.0}
    assert parts == {"score": 0.75, "acc": 1.0, "format": 1.0} | penalties | {"parsed": 1.0, "verdict": 1.0}
    repeated = scored("<answer>7</answer> go go go", repetition=1.0, repetition_ngram=1)
    # Four words, two of them repeated; right, but not of the shape.
    assert repeated["repetition_penalty"] == -0.5 and repeated["score"] == pytest.approx(0.9 - 0.5)


@pytest.mark.parametrize(
    ("reply", "acc", "parsed"),
    [(GOOD, 1, 1), ("7", 1, 1), ("8", 0, 1), ("<answer>7", 0, 0), ("", 0, 0), ("<answer></answer>", 0, 0)],
)
def test_what_is_graded_is_the_tag_or_the_whole_reply(reply: str, acc: float, parsed: float) -> None:
    graded = scored(reply)
    assert (graded["acc"], graded["parsed"]) == (acc, parsed)


def test_options_make_it_multiple_choice() -> None:
    assert scored("<answer>B</answer>", "right", {"options": ["left", "right"]})["acc"] == 1.0


@pytest.mark.parametrize(
    "options",
    [{"A": "left", "B": "right"}, {"A": "left", "B": "right", "C": None}, np.array(["left", "right"]), ("left", "right")],
)
@pytest.mark.parametrize("truth", ["B", "right", "<answer>B</answer>"])
def test_options_of_every_form_are_graded_as_a_list_is(options: object, truth: str) -> None:
    for reply, acc in (("<answer>B</answer>", 1.0), ("<answer>right</answer>", 1.0), ("<answer>A</answer>", 0.0)):
        graded = scored(reply, truth, {"options": options})
        assert (graded["acc"], graded["parsed"]) == (acc, 1.0)


@pytest.mark.parametrize(
    "extra", [None, {}, {"options": None}, {"options": []}, {"options": {"A": None, "B": None}}, {"question": None}]
)
def test_an_open_answer_needs_nothing_else(extra: dict | None) -> None:
    assert asyncio.run(compute_score("sums", GOOD, "7", extra))["acc"] == 1.0
    assert asyncio.run(compute_score("sums", GOOD, "<answer>8</answer>", extra_info=extra))["acc"] == 0.0


@pytest.mark.parametrize(
    ("truth", "extra", "message"),
    [
        (float("nan"), {"index": 3}, r"row 3 of sums: ground_truth: .*must be finite"),
        (["7"], {"index": 0}, r"row 0 of sums: ground_truth: .*must be a text or a number, not list"),
        (None, {"index": 3}, r"row 3 of sums: ground_truth: .*must be a text or a number, not NoneType"),
        (None, None, r"a row of sums: ground_truth: "),
        ({"answer": "7"}, {}, r"ground_truth: .*must be a text or a number, not dict"),
        ("", {"index": 3}, r"row 3 of sums: ground_truth: the right answer is empty"),
        ("<answer></answer>", {}, r"ground_truth: .*tag other than"),
        ("<ans>7</ans>", {}, r"ground_truth: .*<ans>"),
        ("green", {"index": 3, "options": ["red", "blue"]}, r"row 3 of sums: ground_truth: .*'green' is not among the options"),
        ("C", {"index": 3, "options": {"A": "red", "B": "blue"}}, r"row 3 of sums: ground_truth: .*'C' is not among"),
        ("A", {"index": 3, "options": "red, blue"}, r"row 3 of sums: options: .*must be a list of texts, not str"),
        ("A", {"index": 3, "options": [1, 2]}, r"row 3 of sums: options: every option must be a text"),
        ("A", {"options": ["red", "red"]}, r"a row of sums: options: .*must differ"),
        ("A", {"options": 4}, r"options: .*must be a list of texts, not int"),
        ("A", {"options": {"A": "red", "C": "blue"}}, r"options: .*by the letters"),
        ("A", {"options": [str(n) for n in range(11)]}, r"options: .*2 to 10, not 11"),
        ("7", {"index": 3, "question": ["What?"]}, r"row 3 of sums: question must be a text"),
        ("7", "a string", r"a row of sums: extra_info must be a mapping"),
        ("7", [1], r"extra_info must be a mapping"),
    ],
)
def test_a_row_that_no_answer_can_be_compared_with_is_named(truth: Any, extra: Any, message: str) -> None:
    for reply in (GOOD, "no answer", ""):
        with pytest.raises(ValueError, match=message):
            asyncio.run(compute_score("sums", reply, truth, extra))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"formatt": 3}, "unknown keyword 'formatt'; did you mean format?"),
        ({"repetition_ngrams": 3}, "unknown keyword 'repetition_ngrams'; did you mean repetition_ngram?"),
        ({"zzz": 3}, "unknown keyword 'zzz'$"),
        ({"judge": {"url": "http://judge", "modell": "m"}}, "unknown keyword 'judge.modell'; did you mean judge.model?"),
        ({"judge": {"url": "http://judge"}}, "model must be named"),
        ({"judge": "http://judge"}, "judge must be a mapping of the fields of JudgeSettings, not 'http://judge'"),
        ({"accuracy": "1"}, "accuracy must be a number, not '1'"),
        ({"format": None}, "format must be a number, not None"),
        ({"overlong": True}, "overlong must be a number, not True"),
        ({"overlong": 1.0}, "a weight on overlong needs tokenizer and max_response_length"),
        ({"shape": "interleaved"}, "shape is one of text_only, boxed, not 'interleaved'"),
        ({"reason_tag": "<think>"}, "a tag is named by letters, digits, '_' and '-', as in 'think', not '<think>'"),
        ({"answer_tag": "reason"}, "reason and answer need different tags"),
        ({"no_verdict": "skip"}, "no_verdict is raise, a number or null, not 'skip'"),
    ],
)
def test_a_keyword_that_is_not_known_or_of_another_type_is_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scored(GOOD, **kwargs)


def test_what_verl_passes_by_itself_is_accepted() -> None:
    """By every reward manager of verl, where the job has a reward model."""
    assert scored(GOOD, reward_router_address="localhost:1", reward_model_tokenizer=object()) == scored(GOOD)


def test_a_judge_is_made_once_and_gets_the_requests_fields(server: Server) -> None:
    server.script = lambda prompt, nth: says("<think>seven is 7</think> yes")
    request = {"chat_template_kwargs": {"enable_thinking": False}}

    async def twice() -> list[float]:
        for _ in range(2):
            judge = {"url": server.url, "model": "m", "request": dict(request)}
            yield (await compute_score("sums", "<answer>seven</answer>", "7", {"question": "3 + 4?"}, judge=judge))["acc"]

    async def run() -> list[float]:
        before = score._judge.cache_info().misses
        found = [acc async for acc in twice()]
        assert score._judge.cache_info().misses == before + 1
        await score._judge(JudgeSettings(server.url, "m", request=request), os.getpid()).close()
        return found

    assert asyncio.run(run()) == [1.0, 1.0]
    assert [sent["chat_template_kwargs"] for sent in server.requests] == [{"enable_thinking": False}]  # the second is cached


def test_length_is_in_the_policys_tokens(tmp_path: Path) -> None:
    tiny_text.build(tmp_path)
    # " hits" is one token. With a limit of 12 and a buffer of 4: 0 at 8, -0.5 at 10, -1 from 12 on.
    kwargs = {"overlong": 1.0, "tokenizer": str(tmp_path), "max_response_length": 12, "overlong_buffer": 4}
    found = {words: scored(" hits" * words, **kwargs)["overlong_penalty"] for words in (8, 10, 12, 20)}
    assert found == {8: 0.0, 10: -0.5, 12: -1.0, 20: -1.0}


@pytest.fixture
def outage(server: Server) -> Iterator[dict[str, Any]]:
    """The settings of a judge that never gives a verdict."""
    server.script = lambda prompt, nth: says("I cannot say.")
    judge = {"url": server.url, "model": "m", "attempts": 1, "max_failure_rate": 1.0}
    yield judge
    wait(score._judge(JudgeSettings(**judge), os.getpid()).close())


def test_a_failed_verdict_is_neither_right_nor_wrong(outage: dict[str, Any]) -> None:
    """docs/differences.md, row 22: verl leaves a rollout out whose reward fails."""
    ask = partial(compute_score_sync, "sums", GOOD, "seven", {"question": "3 + 4?", "index": 3}, judge=outage)
    with pytest.raises(NoVerdict, match="row 3 of sums: no verdict on '7'"):
        ask()
    assert ask(no_verdict=None)["score"] is None
    chosen = ask(no_verdict=-0.25)
    assert (chosen["score"], chosen["verdict"], chosen["format"]) == (-0.25, 0.0, 1.0) and math.isnan(chosen["acc"])


def test_a_judge_is_not_asked_about_nothing(outage: dict[str, Any]) -> None:
    for extra in (None, {}, {"question": ""}, {"question": None, "options": []}):
        with pytest.raises(ValueError, match=r"a row of sums: question is missing, and the judge is asked about it"):
            compute_score_sync("sums", GOOD, "seven", extra, judge=outage)
    # A rule decides multiple choice.
    assert compute_score_sync("sums", GOOD, "B", {"options": ["6", "7"]}, judge=outage)["acc"] == 1.0


def test_the_shape_is_that_of_the_tags_that_are_named() -> None:
    reply = "<think>3 and 4</think><result>7</result>"
    assert (scored(reply)["acc"], scored(reply)["format"]) == (0.0, 0.0)
    named = scored(reply, reason_tag="think", answer_tag="result")
    assert (named["acc"], named["format"]) == (1.0, 1.0)
    boxed = {"shape": "boxed", "reason_tag": "think"}
    assert scored(r"<think>3 and 4</think> So it is \boxed{7}.", **boxed)["score"] == pytest.approx(0.9 + 0.1)
    assert scored(r"3 and 4, so \boxed{7}", **boxed)["score"] == pytest.approx(0.9)


def test_waiting_for_a_score_in_a_fork_or_within_a_loop() -> None:
    async def within() -> float:
        return compute_score_sync("sums", GOOD, "7")["acc"]

    assert compute_score_sync("sums", GOOD, 7)["acc"] == asyncio.run(within()) == 1.0
    with multiprocessing.get_context("fork").Pool(1) as forked:
        assert forked.apply(compute_score_sync, ("sums", GOOD, "7"))["acc"] == 1.0


def test_what_is_missing_is_told_at_import() -> None:
    """Training imports it at its start, and scores its first reply long after. Neither torch nor a judge's client is loaded.

    What asks a judge is missed when the judge's settings are read.
    """
    code = """
import sys, importlib.util
if sys.argv[1:]:
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == sys.argv[1] else found(name, *rest)
import future_l1_verl.rewards.score
future_l1_verl.rewards.score.Scoring(judge={"url": "http://localhost/v1", "model": "judge"})
print({"torch", "openai", "numpy", "sympy", "math_verify"} & set(sys.modules))
"""

    def told(*without: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *without], capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).splitlines()[-1]

    assert told() == "set()"
    assert told("math_verify") == "ImportError: rewards need math_verify: pip install math-verify"
    assert told("openai") == "ModuleNotFoundError: a judge is asked by openai: pip install openai"


def test_verl_finds_it_by_its_path() -> None:
    function = {
        "path": "pkg://future_l1_verl.rewards.adapters.verl",
        "name": "compute_score",
        "reward_kwargs": {"accuracy": 0.5},
    }
    found = get_custom_reward_fn(SimpleNamespace(reward={"custom_reward_function": function}))
    assert asyncio.run(found("sums", GOOD, "7", {}))["score"] == pytest.approx(0.5 + 0.1)
