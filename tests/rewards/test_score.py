"""The reward function of stock verl jobs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chat_server import Server, says, serving
from verl.trainer.ppo.reward import get_custom_reward_fn

from future_l1_verl.modeling import tiny
from future_l1_verl.rewards import score
from future_l1_verl.rewards.score import NoVerdict, compute_score

GOOD = "<reason>3 and 4</reason><answer>7</answer>"


def scored(reply: str, truth: str = "7", extra: dict | None = None, **kwargs) -> dict[str, float]:
    return asyncio.run(compute_score("sums", reply, truth, extra or {}, **kwargs))


def test_the_score_is_the_weighted_sum_of_its_parts() -> None:
    parts = scored(GOOD, accuracy=0.5, format=0.25)
    assert parts == {"score": 0.75, "acc": 1.0, "format": 1.0, "repetition": 0.0, "overlong": 0.0, "parsed": 1.0}
    repeated = scored("<answer>7</answer> go go go", repetition=1.0, repetition_ngram=1)
    # Four words, two of them repeated; right, but not of the shape.
    assert repeated["repetition"] == -0.5 and repeated["score"] == pytest.approx(0.9 - 0.5)


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
        (7, {"index": 3}, r"row 3 of sums: ground_truth: .*must be a text, not int: 7"),
        (7.0, {}, r"a row of sums: ground_truth: .*must be a text, not float"),
        (["7"], {"index": 0}, r"row 0 of sums: ground_truth: .*must be a text, not list"),
        (None, {"index": 3}, r"row 3 of sums: ground_truth: .*must be a text, not NoneType"),
        (None, None, r"a row of sums: ground_truth: "),
        ({"answer": "7"}, {}, r"ground_truth: .*must be a text, not dict"),
        ("", {"index": 3}, r"row 3 of sums: ground_truth: the right answer is empty"),
        ("<answer></answer>", {}, r"ground_truth: .*tag other than"),
        ("<ans>7</ans>", {}, r"ground_truth: .*<ans>"),
        ("green", {"index": 3, "options": ["red", "blue"]}, r"row 3 of sums: ground_truth: .*'green' is not among the options"),
        ("C", {"index": 3, "options": {"A": "red", "B": "blue"}}, r"row 3 of sums: ground_truth: .*'C' is not among"),
        ("A", {"index": 3, "options": "red, blue"}, r"row 3 of sums: extra_info.options: .*must be a list of texts, not str"),
        ("A", {"index": 3, "options": [1, 2]}, r"row 3 of sums: extra_info.options: every option must be a text"),
        ("A", {"options": ["red", "red"]}, r"a row of sums: extra_info.options: .*must differ"),
        ("A", {"options": 4}, r"extra_info.options: .*must be a list of texts, not int"),
        ("A", {"options": {"A": "red", "C": "blue"}}, r"extra_info.options: .*by the letters"),
        ("A", {"options": [str(n) for n in range(11)]}, r"extra_info.options: .*2 to 10, not 11"),
        ("7", {"index": 3, "question": ["What?"]}, r"row 3 of sums: extra_info.question must be a text"),
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
        ({"formatt": 3}, "unknown keyword 'formatt'; did you mean 'format'?"),
        ({"repetition_ngrams": 3}, "unknown keyword 'repetition_ngrams'; did you mean 'repetition_ngram'?"),
        ({"zzz": 3}, "unknown keyword 'zzz'$"),
        ({"judge": {"url": "http://judge", "modell": "m"}}, "unknown keyword 'judge.modell'; did you mean 'judge.model'?"),
        ({"judge": {"url": "http://judge"}}, "model must be named"),
        ({"judge": "http://judge"}, "judge must be a mapping of the fields of JudgeSettings, not 'http://judge'"),
        ({"accuracy": "1"}, "accuracy must be a number, not '1'"),
        ({"format": None}, "format must be a number, not None"),
        ({"overlong": True}, "overlong must be a number, not True"),
    ],
)
def test_a_keyword_that_is_not_known_or_of_another_type_is_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scored(GOOD, **kwargs)


def test_what_verl_passes_by_itself_is_accepted() -> None:
    """By every reward manager of verl, where the job has a reward model."""
    assert scored(GOOD, reward_router_address="localhost:1", reward_model_tokenizer=object()) == scored(GOOD)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


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
        await score._judge(score.JudgeSettings(server.url, "m", request=request)).close()
        return found

    assert asyncio.run(run()) == [1.0, 1.0]
    assert [sent["chat_template_kwargs"] for sent in server.requests] == [{"enable_thinking": False}]  # the second is cached


def test_length_is_in_the_policys_tokens(tmp_path: Path) -> None:
    tiny.build_text(tmp_path)
    # " hits" is one token. With a limit of 12 and a buffer of 4: 0 at 8, -0.5 at 10, -1 from 12 on.
    kwargs = {"overlong": 1.0, "tokenizer": str(tmp_path), "max_response_length": 12, "overlong_buffer": 4}
    found = {words: scored(" hits" * words, **kwargs)["overlong"] for words in (8, 10, 12, 20)}
    assert found == {8: 0.0, 10: -0.5, 12: -1.0, 20: -1.0}
    with pytest.raises(ValueError, match="a weight on overlong needs"):
        scored(GOOD, overlong=1.0)


def test_a_failed_verdict_is_neither_right_nor_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """reference-audit.md, row 22: verl leaves a rollout out whose reward fails."""

    async def no_verdict(*_: object) -> None:
        return None

    monkeypatch.setattr(score, "assess", no_verdict)
    with pytest.raises(NoVerdict, match="'7'"):
        scored(GOOD)


def test_verl_finds_it_by_its_path() -> None:
    function = {"path": "pkg://future_l1_verl.rewards.score", "name": "compute_score", "reward_kwargs": {"accuracy": 0.5}}
    found = get_custom_reward_fn(SimpleNamespace(reward={"custom_reward_function": function}))
    assert asyncio.run(found("sums", GOOD, "7", {}))["score"] == pytest.approx(0.5 + 0.1)
