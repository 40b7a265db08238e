"""Marks from 0 to 5 by a judge, over a real HTTP server that misbehaves on command."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import DROPPED, Reply, Server, says, serving
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import data_url
from future_l1_verl.data.rows import Row, Turn
from future_l1_verl.data.seeing import see
from future_l1_verl.data.video import write_video
from future_l1_verl.evaluation.grading import Verdict, grade_reply, mark_reply
from future_l1_verl.evaluation.marks import Marks, mark, parse_marks, parse_scores, parted, reasoning_text
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LATENT, LATENT_END, LATENT_START
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable

THREE_AND_FOUR = {"reasoning": 3, "answer": 4}

REPLIES = [
    ('{"reasoning": 3, "answer": 4}', THREE_AND_FOUR),
    ('{"answer": 4, "reasoning": 3}', THREE_AND_FOUR),
    (' \n{"reasoning":3,\n "answer":4}\n', THREE_AND_FOUR),
    ('```json\n{"reasoning": 3, "answer": 4}\n```', THREE_AND_FOUR),
    ('```\n{"reasoning": 3, "answer": 4}\n```', THREE_AND_FOUR),
    ('{"reasoning": 0, "answer": 5}', {"reasoning": 0, "answer": 5}),
    ('{"reasoning": "3", "answer": 4}', None),
    ('{"reasoning": 3.0, "answer": 4}', None),
    ('{"reasoning": 3.5, "answer": 4}', None),
    ('{"reasoning": 3, "answer": 6}', None),
    ('{"reasoning": -1, "answer": 4}', None),
    ('{"reasoning": 1e0, "answer": 4}', None),
    ('{"reasoning": true, "answer": 4}', None),
    ('{"reasoning": null, "answer": 4}', None),
    ('{"reasoning": NaN, "answer": 4}', None),
    ('{"reasoning": [3], "answer": 4}', None),
    ('{"reasoning": 3}', None),
    ("{}", None),
    ('{"reasoning": 3, "answer": 4, "answer": 5}', None),
    ('{"reasoning": 3, "answer": 4, "answer": 4}', None),
    ('{"reasoning": 3, "answer": 4, "note": "good"}', None),
    ('{"Reasoning": 3, "Answer": 4}', None),
    ('{"marks": {"reasoning": 3, "answer": 4}}', None),
    ('[{"reasoning": 3, "answer": 4}]', None),
    ('{"reasoning": 3, "answer": 4} {"reasoning": 3, "answer": 4}', None),
    ('My marks: {"reasoning": 3, "answer": 4}', None),
    ('{"reasoning": 3, "answer": 4}\nThe steps follow from each other.', None),
    ('{"reasoning": 3/5, "answer": 4/5}', None),
    ("{'reasoning': 3, 'answer': 4}", None),
    ('{"reasoning": 3, "answer": 4', None),
    ("reasoning: 3, answer: 4", None),
    ("yes", None),
    ("", None),
]


@pytest.mark.parametrize(("reply", "marks"), REPLIES)
def test_the_marks_of_a_reply(reply: str, marks: dict[str, int] | None) -> None:
    assert parse_marks(reply) == marks


json_values = st.integers(-2, 8) | st.booleans() | st.floats() | st.text(max_size=3) | st.none()


@given(st.dictionaries(st.sampled_from(["reasoning", "answer", "note"]), json_values))
def test_marks_are_read_from_two_whole_numbers_in_range_and_from_nothing_else(found: dict[str, Any]) -> None:
    whole = {"reasoning", "answer"} == set(found) and all(json.dumps(value) in list("012345") for value in found.values())
    assert parse_marks(json.dumps(found)) == (found if whole else None)


SPAN = LATENT_START + 3 * LATENT + LATENT_END


@pytest.mark.parametrize(
    ("reply", "reasoning"),
    [
        (f"<reason>It rolls.</reason>{SPAN}<reason>It falls.</reason><answer>It falls.</answer>",
         "<reason>It rolls.</reason> <reason>It falls.</reason>"),
        (f"It rolls.{SPAN}{SPAN}It falls.<answer>\nIt\nfalls.\n</answer>", "It rolls. It falls."),
        ("<answer>It falls.</answer> For it rolls.", "For it rolls."),
        (f"{SPAN}<answer>It falls.</answer>", ""),
    ],
)  # fmt: skip
def test_the_reasoning_is_the_reply_without_its_answer_and_its_latents(reply: str, reasoning: str) -> None:
    assert reasoning_text(reply) == reasoning


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.script = lambda prompt, nth: says(json.dumps(THREE_AND_FOUR))
        yield running


def judge_at(server: Server, **changes: Any) -> Judge:
    return Judge(replace(JudgeSettings(server.url, "judge", backoff=0.001, max_failure_rate=1.0, attempts=2), **changes))


def marked(judge: Judge, *texts: str) -> list[Verdict]:
    async def run() -> list[Verdict]:
        try:
            return await asyncio.gather(*(mark_reply(text, ROW, judge, "ours", 4) for text in texts))
        finally:
            await judge.close()

    return asyncio.run(run())


ROW = Row(turns=(Turn("user", "What falls, {truth}?"),), truth="The ball.")
REPLY = f"<reason>It rolls {{answer}}.</reason>{SPAN}<answer>a ball</answer>"


def test_the_judge_sees_question_truth_reasoning_and_answer_as_they_are_and_no_control_tokens(server: Server) -> None:
    assert marked(judge_at(server), REPLY) == [Verdict(True, {"reasoning": 3.0, "answer": 4.0})]
    (prompt,) = server.prompts()
    for part in ("What falls, {truth}?", "The ball.", "<reason>It rolls {answer}.</reason>", "a ball"):
        assert f"\n{part}\n" in prompt
    assert not any(token in prompt for token in CONTROL_TOKENS)


@pytest.mark.parametrize("reply", ["It falls.", "<answer></answer>", "<answer>a</answer><answer>b</answer>", "<answer>a"])
def test_a_reply_without_one_answer_has_no_marks_and_nobody_is_asked(server: Server, reply: str) -> None:
    assert marked(judge_at(server), reply) == [Verdict(False, {"reasoning": 0.0, "answer": 0.0})]
    assert server.requests == []


@pytest.mark.parametrize(
    ("fault", "says_why"),
    [
        (Reply("busy", status=500), "HTTP 500: busy"),
        (Reply("<html>"), "unusable reply"),
        (says('{"reasoning": 3, "answer": 9}'), "unusable reply"),
        (says("yes"), "unusable reply"),
        (DROPPED, "Server disconnected"),
        (Reply(after=60.0), "no reply within 0.2 s"),
    ],
)
def test_marks_that_fail_at_every_attempt_are_no_verdict(server: Server, fault: Reply, says_why: str) -> None:
    server.script = lambda prompt, nth: fault
    judge = judge_at(server, timeout=0.2 if fault.after else 60.0)
    (verdict,) = marked(judge, REPLY)
    assert verdict.scores is None and says_why in verdict.error
    assert (judge.counts.failed, judge.counts.attempts) == (1, 2)


def test_marks_after_a_fault_are_marks(server: Server) -> None:
    server.script = lambda prompt, nth: Reply(status=503) if nth == 0 else says(json.dumps(THREE_AND_FOUR))
    assert marked(judge_at(server), REPLY)[0].scores == {"reasoning": 3.0, "answer": 4.0}


def test_a_judge_that_is_gone_raises_even_for_a_reply_that_needs_none(server: Server) -> None:
    server.script = lambda prompt, nth: Reply("no such key", 401)
    judge = judge_at(server)
    for reply in (REPLY, "It falls."):
        with pytest.raises(JudgeUnavailable, match="no such key"):
            marked(judge, reply)
    assert len(server.requests) == 1


def test_marks_and_verdicts_share_a_judge_and_its_cache_file(server: Server, tmp_path: Path) -> None:
    """Of the same question, answer and truth."""
    server.script = lambda prompt, nth: says(json.dumps(THREE_AND_FOUR) if "Reasoning to mark" in prompt else "no")

    async def both(judge: Judge) -> tuple[Marks | None, bool | None]:
        found = await mark(judge, "q", "", "a", "t"), await judge.verdict("q", "a", "t")
        await judge.close()
        return found

    cache = str(tmp_path / "said.sqlite")
    for _ in range(2):
        assert asyncio.run(both(judge_at(server, cache=cache))) == (Marks(reasoning=3, answer=4), False)
    assert len(server.requests) == 2


def test_a_grade_that_the_judge_does_not_give_is_no_verdict(server: Server) -> None:
    server.script = lambda prompt, nth: Reply("busy", status=500)
    judge = judge_at(server)

    async def graded() -> Verdict:
        verdict = await grade_reply("<answer>a sphere</answer>", ROW, judge)
        await judge.close()
        return verdict

    verdict = asyncio.run(graded())
    assert verdict.scores is None and "HTTP 500: busy" in verdict.error


# The protocol of the benchmark's authors


@pytest.fixture(scope="module")
def twiff(tmp_path_factory: pytest.TempPathFactory) -> Row:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20 + np.zeros((1, 32, 32, 3), np.uint8)
    write_video(path, frames, 4)
    return Row(
        turns=(Turn("user", "frame_1\n<image>\nWhat falls?"),), observed=(1,), video=str(path), truth="The ball.",
        future=(3, 5), response="It rolls.<image>It tips.<image>It is down.<answer>The ball.</answer>",
    )  # fmt: skip


def by_reference(server: Server, row: Row, *texts: str) -> list[Verdict]:
    async def run() -> list[Verdict]:
        judge = judge_at(server)
        try:
            return [await mark_reply(text, row, judge, "reference", 4) for text in texts]
        finally:
            await judge.close()

    return asyncio.run(run())


def test_by_reference_the_judge_sees_pictures_chain_and_answer(server: Server, twiff: Row) -> None:
    server.script = lambda prompt, nth: says('{"reasoning": "Valid.", "score": [4, 2]}')
    assert by_reference(server, twiff, REPLY) == [Verdict(True, {"reasoning": 4.0, "answer": 2.0})]
    (request,) = server.requests
    *images, text = request["messages"][0]["content"]
    seen = see(twiff, Clips())
    assert [image["image_url"]["url"] for image in images] == [data_url(f.image) for f in (*seen.observed, *seen.future)]
    for part in ("frame_1\n\nWhat falls?", "It rolls. It tips. It is down.", "The ball.", "It rolls {answer}.", "a ball"):
        assert f"\n{part}\n" in text["text"]
    assert "the first 1 belong to the question and the other 2" in text["text"]


@pytest.mark.parametrize(
    ("reply", "reasoning", "answer", "parsed"),
    [
        ("It falls.", "It falls.", "", False),
        ("It rolls.<ans>It falls.</ans>", "It rolls.", "It falls.", False),
        ("<think>It rolls.</think>It falls.", "<think>It rolls.", "It falls.", False),
        (f"<reason>So</reason>{SPAN}<answer>it falls</answer>", "So", "it falls", True),
        ("<answer>a</answer><answer>b</answer>", "", "", False),
    ],
)
def test_by_reference_a_reply_without_tags_is_marked_as_well(
    reply: str, reasoning: str, answer: str, parsed: bool, server: Server, twiff: Row
) -> None:
    server.script = lambda prompt, nth: says('```json\n{"reasoning": "No.", "score": [1, 0]}\n```')
    assert parted(reply) == (reasoning, answer)
    assert by_reference(server, twiff, reply) == [Verdict(parsed, {"reasoning": 1.0, "answer": 0.0})]


@pytest.mark.parametrize(
    "reply",
    ['{"score": [3, 6]}', '{"score": [3]}', '{"score": 3}', '{"score": [3, true]}', '{"reasoning": 3, "answer": 2}', "[3, 4]",
     '{"score": [1, 2], "score": [3, 4]}', '{"score": ["3", "4"]}'],
)  # fmt: skip
def test_scores_of_another_form_are_none(reply: str) -> None:
    assert parse_scores(reply) is None
