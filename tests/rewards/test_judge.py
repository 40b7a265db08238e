"""The judge of open answers against a real HTTP server that misbehaves on command."""

import asyncio
import hashlib
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from chat_server import DROPPED, Reply, Script, Server, says, serving
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from future_l1_verl.cli import main
from future_l1_verl.rewards.judge import cache as verdict_cache
from future_l1_verl.rewards.judge.check import EXAMPLES
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable
from future_l1_verl.rewards.judge.verdict import parse_verdict

T = TypeVar("T")

# Audit row 23: no verdict is read from a substring, and none from a reply that leaves doubt.
REPLIES = [
    ("yes", True),
    ("No", False),
    ("CORRECT", True),
    ("incorrect.", False),
    ("True", True),
    ("false!", False),
    ("  \n yes \n", True),
    ("**Yes**", True),
    ("**No.** They differ.", False),
    ('"yes"', True),
    ("\u201cno\u201d", False),
    ("`yes`", True),
    ("_no_", False),
    ("Verdict: yes", True),
    ("**Verdict:** No", False),
    ("answer: no, it names another car", False),
    ("yes, it denotes the same event", True),
    ("Yes. I know nothing that sets them apart.", True),
    ("yes\nBoth name the fall of the ball.", True),
    ("Yes (no-one else is there)", True),
    ("No - the yesterday of the reference is missing", False),
    ("No: the answer is incorrectly ordered", False),
    ('{"correct": true}', True),
    ('{"verdict": "no"}', False),
    ('{"reason": "no doubt", "verdict": "Yes."}', True),
    ('```json\n{"correct": false}\n```', False),
    ("yes and no", None),
    ("yes/no", None),
    ("Yes. On reflection: No.", None),
    ("No. It is correct.", None),
    ("Yes: it is not correct.", None),
    ("Correct? It isn't.", None),
    ("Yes. However, it is wrong about the car.", None),
    ("Yes, but that is not right.", None),
    ("No, it is right.", None),
    ("No. It rolls right, not left.", False),
    ("Yes: both roll right.", True),
    ("Correct, though it isn't quite correct.", None),
    ("not correct", None),
    ("yesterday, it fell", None),
    ("nobody knows", None),
    ("no-one knows", None),
    ("yes-ish", None),
    ("no one can say", None),
    ("Yes...but", None),
    ("I think yes", None),
    ("The answer is correct.", None),
    ("<think>yes</think>no", None),
    ("Verdict:", None),
    ("", None),
    ("maybe", None),
    ("1", None),
    ('{"correct": "true"}', None),
    ('{"correct": 1}', None),
    ('{"correct": true, "verdict": "no"}', None),
    ('{"correct": true, "correct": false}', None),
    ('{"correct": true} no', None),
    ('[["correct", true]]', None),
    ('{"correct": tr', None),
    ('{"a":' * 5000, None),
]
LONGER_WORDS = ["denotes", "know", "yesterday", "eyes", "falsehood", "untrue", "trueness", "incorrectly", "no-one", "correct's"]


@pytest.mark.parametrize(("text", "verdict"), REPLIES)
def test_the_verdict_of_a_reply(text: str, verdict: bool | None) -> None:
    assert parse_verdict(text) is verdict


@given(st.text() | st.lists(st.sampled_from(["verdict", ":", "**", ".", ",", "\n", '{"correct":', "}", "maybe"])).map(" ".join))
def test_text_without_a_verdict_word_gives_no_verdict(text: str) -> None:
    assume(not re.search("yes|no|correct|true|false", text, re.IGNORECASE))
    assert parse_verdict(text) is None


@given(st.lists(st.sampled_from(LONGER_WORDS), min_size=1), st.sampled_from([", ", ". ", "\n", " - ", ": ", " ("]))
def test_longer_words_neither_make_nor_change_a_verdict(words: list[str], mark: str) -> None:
    assert parse_verdict(" ".join(words)) is None
    assert parse_verdict(f"Yes{mark}{' '.join(words)}") is True
    assert parse_verdict(f"No{mark}{' '.join(words)}") is False


@given(st.text(), st.text())
def test_the_opposite_word_always_takes_the_verdict_back(before: str, after: str) -> None:
    assert parse_verdict(f"Yes, {before} no {after}") is None
    assert parse_verdict(f"No, {before} yes {after}") is None


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running_server:
        yield running_server


def settings_of(server: Server, **changes: Any) -> JudgeSettings:
    return replace(JudgeSettings(server.url, "judge", backoff=0.001, max_failure_rate=1.0), **changes)


def running(judge: Judge, what: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        try:
            return await what()
        finally:
            await judge.close()

    return asyncio.run(run())


def ask(judge: Judge, question: str = "What falls?", answer: str = "a ball", truth: str = "the ball") -> bool | None:
    return running(judge, lambda: judge.verdict(question, answer, truth))


def ask_all(judge: Judge, questions: list[str]) -> list[bool | None]:
    return running(judge, lambda: asyncio.gather(*(judge.verdict(question, "a", "b") for question in questions)))


# Audit row 22: a failed verdict is None and counted, never False.
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(status=500), "http 500"),
        (Reply(status=429), "http 429"),
        (Reply('{"choices": [{"mess'), "unusable reply"),
        (Reply("<html>no</html>"), "unusable reply"),
        (Reply("[" * 5000), "unusable reply"),
        (Reply('{"choices": []}'), "unusable reply"),
        (Reply('{"choices": null}'), "unusable reply"),
        (Reply('{"error": {"message": "no"}}'), "unusable reply"),
        (Reply('"no"'), "unusable reply"),
        (says(None), "unusable reply"),
        (says(""), "unusable reply"),
        (says("well, no"), "unusable reply"),
        (DROPPED, "connection"),
        (Reply("HTTP", after=60.0), "timeout"),
    ],
)
def test_a_verdict_that_fails_at_every_attempt_is_none_and_counted(server: Server, reply: Reply, reason: str) -> None:
    server.script = lambda prompt, nth: reply
    judge = Judge(settings_of(server, attempts=3, timeout=0.2 if reason == "timeout" else 60.0))
    assert ask(judge) is None
    counts = judge.counts
    assert (counts.asked, counts.failed, counts.cached, counts.attempts) == (1, 1, 0, 3)
    assert counts.reasons == {reason: 3}
    assert len(server.requests) == 3


def test_a_refused_connection_is_none_and_counted(server: Server) -> None:
    closed = Server()
    closed.server_close()
    judge = Judge(settings_of(closed, attempts=3))
    assert ask(judge) is None
    assert (judge.counts.failed, judge.counts.attempts, judge.counts.reasons) == (1, 3, {"connection": 3})


@pytest.mark.parametrize("fault", [Reply(status=503), Reply("<html>"), says("hm"), DROPPED])
def test_a_verdict_after_faults_counts_as_no_failure(server: Server, fault: Reply) -> None:
    server.script = lambda prompt, nth: fault if nth < 2 else says("no, it denotes another event")
    judge = Judge(settings_of(server))
    assert ask(judge) is False
    assert (judge.counts.asked, judge.counts.failed, judge.counts.attempts) == (1, 0, 3)
    assert judge.counts.reasons.total() == 2


def test_yes_it_denotes_is_yes_over_the_wire(server: Server) -> None:
    server.script = lambda prompt, nth: says("yes, it denotes the same event")  # audit row 23
    judge = Judge(settings_of(server))
    assert ask(judge) is True
    assert (judge.counts.attempts, judge.counts.reasons) == (1, {})
    assert (server.requests[0]["temperature"], server.requests[0]["max_tokens"]) == (0, 64)


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 413, 422])
def test_a_judge_that_refuses_everything_is_unavailable_after_a_question_and_a_probe(server: Server, status: int) -> None:
    server.script = lambda prompt, nth: Reply('{"error": "the key has expired"}', status)
    judge = Judge(settings_of(server))
    with pytest.raises(JudgeUnavailable, match=f"HTTP {status}.*the key has expired"):
        ask(judge)
    assert len(server.requests) == judge.counts.attempts == 2
    assert judge.counts.reasons == {f"http {status}": 1}
    with pytest.raises(JudgeUnavailable):
        judge.require_available()


def test_a_key_that_is_refused_ends_it_after_one_request(server: Server) -> None:
    server.script = lambda prompt, nth: Reply("no such key", 401)
    with pytest.raises(JudgeUnavailable, match=r"it wants another API key.*HTTP 401: no such key"):
        ask(Judge(settings_of(server)))
    assert len(server.requests) == 1


PUZZLE = "What is a puzzle?"


def puzzled(status: int, probe: Reply = says("yes")) -> Script:  # noqa: B008
    """Refuses one question; all others are answered but the probe, which has a reply of its own."""

    def script(prompt: str, nth: int) -> Reply:
        if PUZZLE in prompt:
            return Reply('{"error": "longer than the context"}', status)
        return probe if "one plus one" in prompt else says("yes")

    return script


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 451])
def test_a_question_that_is_refused_fails_alone_and_at_once(server: Server, status: int, tmp_path: Path) -> None:
    server.script = puzzled(status)
    kept = settings_of(server, cache=str(tmp_path / "verdicts.sqlite"))
    for asked in (3, 1):  # and after a restart
        judge = Judge(kept)
        assert ask_all(judge, ["one", PUZZLE, "two"]) == [True, None, True]
        assert (judge.counts.asked, judge.counts.failed) == (asked, 1)
        assert judge.counts.reasons == {f"http {status}": 1}
        assert "longer than the context" in judge.counts.last_error
        judge.require_available()
    assert server.seen[next(prompt for prompt in server.prompts() if PUZZLE in prompt)] == 2  # once a judge


@pytest.mark.parametrize("probe", [Reply(status=503), Reply(status=429), DROPPED, says("Two."), says(None), Reply("<html>")])
def test_only_a_refused_probe_says_that_a_judge_is_not_fit(server: Server, probe: Reply) -> None:
    server.script = puzzled(400, probe)
    judge = Judge(settings_of(server))
    assert ask_all(judge, [PUZZLE, "one"]) == [None, True]
    judge.require_available()


def test_what_refuses_the_probe_is_said(server: Server) -> None:
    server.script = puzzled(400, Reply("the key has expired", 401))
    with pytest.raises(JudgeUnavailable, match=r"it wants another API key.*http 400 1.*HTTP 401: the key has expired"):
        ask(Judge(settings_of(server)), PUZZLE)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_what_may_do_better_later_is_asked_again(server: Server, status: int) -> None:
    server.script = lambda prompt, nth: Reply(status=status) if nth == 0 else says("yes")
    judge = Judge(settings_of(server))
    assert ask(judge) is True
    assert len(server.requests) == 2


def test_refused_questions_count_as_failures(server: Server) -> None:
    server.script = puzzled(400)
    questions = [f"{PUZZLE} {n}" for n in range(3)] + [f"number {n}" for n in range(17)]
    with pytest.raises(JudgeUnavailable, match=r"of the last 20 verdicts 3 failed \(15.0%.*http 400 3"):
        ask_all(Judge(settings_of(server, max_failure_rate=0.1)), questions)
    assert ask_all(Judge(settings_of(server, max_failure_rate=0.15)), questions) == [None] * 3 + [True] * 17


THOUGHTS = [
    ("<think>Is it? No.</think>yes", True),
    ("<think>\nyes, or no?\n</think>\n\nNo.", False),
    ("  <thinking>no</thinking> **Yes**", True),
    ("The user asks. No? </think>\n\nyes", True),  # the template opened the block
    ("yes</thinking>no", False),
    ("<think>no <think> no</think> no</think> yes", True),
    ("<think>a</think><think>b</think>Verdict: no", False),
    ('<think>{"correct": false}</think>\n```json\n{"correct": true}\n```', True),
    ("<think>yes", None),  # not closed
    ("<think>Let me see.\nyes", None),
    ("<thinking>no</thinking><think>yes", None),
    ("<think>yes</think>", None),
    ("yes</think>", None),
    ("Yes, so it is. <think>no</think>", None),
    ("<think>no</think>well, <think>yes</think> yes", None),
]


@pytest.mark.parametrize(("reply", "verdict"), THOUGHTS)
def test_what_a_judge_thinks_before_its_verdict_is_left_out(server: Server, reply: str, verdict: bool | None) -> None:
    server.script = lambda prompt, nth: says(reply)
    assert ask(Judge(settings_of(server, attempts=1))) is verdict


def test_every_reader_gets_the_reply_without_thoughts(server: Server) -> None:
    replies = ['<think>{"a": 1}</think>\n{"a": 2}', 'So {"a": 1}.</think>{"a": 2}', '{"a": 2}']
    server.script = lambda prompt, nth: says(replies[number_of(prompt)])
    judge = Judge(settings_of(server))
    asked = lambda n: judge.ask("number {n}", {"n": n}, json.loads)  # noqa: E731
    assert running(judge, lambda: asyncio.gather(*map(asked, "012"))) == [{"a": 2}] * 3


def test_a_reply_cut_at_max_tokens_says_so(server: Server) -> None:
    def cut(content: str | None) -> Reply:
        return Reply(json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "length"}]}))

    for content in ("<think>Let me see", None):
        server.script = lambda prompt, nth, content=content: cut(content)
        judge = Judge(settings_of(server, attempts=2))
        assert ask(judge) is None
        assert judge.counts.reasons == {"unusable reply": 2}
        assert "max_tokens was reached" in judge.counts.last_error
    server.script = lambda prompt, nth: cut("yes, since the ball")
    assert ask(Judge(settings_of(server))) is True


def test_further_fields_of_a_request_are_sent_and_none_takes_one_away(server: Server) -> None:
    ask(Judge(settings_of(server)))
    more = {"max_tokens": None, "max_completion_tokens": 512, "chat_template_kwargs": {"enable_thinking": False}}
    ask(Judge(settings_of(server, request=more)))
    ask(Judge(settings_of(server, request={"temperature": 0.5, "top_p": 0.9})))
    sent = [
        {name: value for name, value in request.items() if name not in ("model", "messages")} for request in server.requests
    ]
    assert sent == [
        {"temperature": 0, "max_tokens": 64},
        {"temperature": 0, "max_completion_tokens": 512, "chat_template_kwargs": {"enable_thinking": False}},
        {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64},
    ]


def test_verdicts_are_kept_apart_by_the_requests_fields(server: Server, tmp_path: Path) -> None:
    kept = settings_of(server, cache=str(tmp_path / "verdicts.sqlite"))
    for request in ({}, {"top_p": 0.9}, {"top_p": 0.8}, {"top_p": 0.9}, {}):
        ask(Judge(replace(kept, request=request)))
    assert len(server.requests) == 3


def test_a_verdict_of_an_earlier_version_is_found_again() -> None:
    """Its digest, computed here, is of model, template and parts alone."""
    digest = hashlib.sha256(json.dumps(["judge", "{q}", "What?"]).encode()).digest()
    assert verdict_cache.key("judge", "{q}", ["What?"], {}) == digest


def test_settings_with_fields_are_a_key_and_plain_json() -> None:
    request = {"extra": {"stop": ["a", "b"]}, "max_tokens": None}
    plain = JudgeSettings("http://localhost/v1", "judge", request=request)
    tree = JudgeSettings("http://localhost/v1", "judge", request=OmegaConf.create(request))
    assert plain == tree and hash(plain) == hash(tree)
    assert json.loads(json.dumps(asdict(tree)))["request"] == request
    assert plain != replace(plain, request={})
    request["extra"]["stop"].append("c")
    assert plain == tree  # a copy


def test_pictures_are_sent_before_the_text_and_are_part_of_the_question(server: Server) -> None:
    judge = Judge(settings_of(server))
    red, blue = "data:image/png;base64,cmVk", "data:image/png;base64,Ymx1ZQ=="

    async def seen() -> list[bool | None]:
        return [
            await judge.ask("Is it {what}?", {"what": "a ball"}, parse_verdict, images=images)
            for images in ([red, blue], (red, blue), [blue, red], [red], [])
        ]

    assert running(judge, seen) == [True] * 5
    assert len(server.requests) == 4
    assert server.prompts()[0] == [
        {"type": "image_url", "image_url": {"url": red}},
        {"type": "image_url", "image_url": {"url": blue}},
        {"type": "text", "text": "Is it a ball?"},
    ]
    assert server.prompts()[-1] == "Is it a ball?"


def test_the_api_key_comes_from_its_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    ask(Judge(settings_of(server, api_key_file=str(tmp_path / "key"))))
    ask(Judge(settings_of(server)))
    assert server.keys == ["Bearer s3cret", "Bearer none"]
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ValueError, match="api_key_file"):
        Judge(settings_of(server, api_key_file=str(tmp_path / "key")))


def number_of(prompt: str) -> int:
    return int(re.search(r"number (\d+)", prompt)[1])


def test_a_thousand_verdicts_with_faults_are_all_accounted_for_and_none_is_wrong(server: Server) -> None:
    # Audit row 22. Every 100th question fails always; of the other requests one in five does.
    def faulty(prompt: str, nth: int) -> Reply:
        time.sleep(0.005)
        number = number_of(prompt)
        if number % 100 == 0:
            return Reply(status=500)
        draw = random.Random(f"{number}/{nth}").random()
        if draw < 0.2:
            faults = [Reply(status=500), Reply("{garbage"), says("no idea"), DROPPED, Reply(status=502)]
            return Reply(after=60.0) if draw < 0.01 else faults[number % len(faults)]
        return says("yes" if number % 2 == 0 else "No.")

    server.script = faulty
    judge = Judge(settings_of(server, attempts=8, timeout=4.0))
    questions = [f"Is the number {number} even?" for number in range(1000)]
    verdicts = ask_all(judge, questions)

    assert verdicts == [None if number % 100 == 0 else number % 2 == 0 for number in range(1000)]
    assert server.peak <= 64
    counts = judge.counts
    assert (counts.asked, counts.failed, counts.cached) == (1000, 10, 0)
    assert counts.attempts == len(server.requests) == 990 + counts.reasons.total()
    assert set(counts.reasons) == {"http 500", "http 502", "unusable reply", "connection", "timeout"}


def test_as_many_requests_are_in_flight_as_may_be_and_no_more(server: Server) -> None:
    four = threading.Barrier(4)

    def held(prompt: str, nth: int) -> Reply:
        four.wait(timeout=30)
        time.sleep(0.01)  # for a fifth to show
        return says("yes")

    server.script = held
    assert ask_all(Judge(settings_of(server, concurrency=4)), [str(n) for n in range(40)]) == [True] * 40
    assert server.peak == 4


def test_failures_above_the_rate_raise_with_the_reasons(server: Server) -> None:
    # Audit row 22. Of the first 20 questions 3 fail: above 10 %, not above 15 %.
    server.script = lambda prompt, nth: Reply(status=503) if number_of(prompt) < 3 else says("no")
    questions = [f"number {n}" for n in range(20)]

    judge = Judge(settings_of(server, attempts=2, max_failure_rate=0.1))
    with pytest.raises(JudgeUnavailable, match=r"of the last 20 verdicts 3 failed \(15.0%.*http 503 6.*HTTP 503"):
        ask_all(judge, questions)

    judge = Judge(settings_of(server, attempts=2, max_failure_rate=0.15))
    assert ask_all(judge, questions) == [None] * 3 + [False] * 17
    assert (judge.counts.asked, judge.counts.failed) == (20, 3)


def test_fewer_than_twenty_verdicts_have_no_failure_rate(server: Server) -> None:
    server.script = lambda prompt, nth: Reply(status=503)
    judge = Judge(settings_of(server, attempts=1, max_failure_rate=0.1))
    assert ask_all(judge, [str(n) for n in range(19)]) == [None] * 19
    with pytest.raises(JudgeUnavailable):
        ask(judge, "one more")


def test_an_outage_late_in_a_run_is_not_diluted_by_what_went_well_before(server: Server) -> None:
    server.script = lambda prompt, nth: says("yes") if number_of(prompt) < 1500 else Reply(status=503)
    judge = Judge(settings_of(server, attempts=1, max_failure_rate=0.1))
    assert ask_all(judge, [f"number {n}" for n in range(1500)]) == [True] * 1500
    assert ask_all(judge, [f"number {n}" for n in range(1500, 1600)]) == [None] * 100
    with pytest.raises(JudgeUnavailable, match="of the last 1000 verdicts 101 failed"):
        ask(judge, "number 1600")


def test_the_same_question_is_asked_once(server: Server) -> None:
    judge = Judge(settings_of(server))
    assert ask_all(judge, ["same"] * 50) == [True] * 50
    assert ask(judge, "same", "a", "b") is True  # in another event loop
    assert len(server.requests) == 1
    assert (judge.counts.asked, judge.counts.cached) == (1, 50)


def test_every_part_of_a_question_makes_it_another(server: Server) -> None:
    judge = Judge(settings_of(server))
    for parts in [("q", "a", "t"), ("Q", "a", "t"), ("q", "A", "t"), ("q", "a", "T"), ("qa", "", "t"), ("q", "t", "a")]:
        ask(judge, *parts)
    assert len(server.requests) == 6


def test_a_cancelled_waiter_takes_the_verdict_from_nobody_else(server: Server) -> None:
    release = threading.Event()

    def held(prompt: str, nth: int) -> Reply:
        release.wait()
        return says("yes")

    server.script = held
    judge = Judge(settings_of(server))

    async def two_waiters() -> bool | None:
        first = asyncio.create_task(judge.verdict("q", "a", "t"))
        second = asyncio.create_task(judge.verdict("q", "a", "t"))
        while not server.requests:
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        release.set()
        assert first.cancelled()
        return await second

    assert running(judge, two_waiters) is True
    assert len(server.requests) == 1


def test_a_judge_outlives_an_event_loop_that_nobody_closed(server: Server) -> None:
    judge = Judge(settings_of(server))
    assert [asyncio.run(judge.verdict(question, "a", "t")) for question in ("one", "two")] == [True, True]


def test_judges_share_a_cache_file_but_not_across_models_or_prompts(server: Server, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{question} {truth} {answer}?")
    kept = settings_of(server, cache=str(tmp_path / "new" / "verdicts.sqlite"))
    first, second = Judge(kept), Judge(kept)
    assert (ask(first), ask(second), len(server.requests)) == (True, True, 1)
    assert (second.counts.asked, second.counts.cached) == (0, 1)

    server.script = lambda prompt, nth: says("no")
    for other in (replace(kept, model="other"), replace(kept, prompt=str(tmp_path / "prompt.txt"))):
        assert ask(Judge(other)) is False
    assert (ask(Judge(kept)), len(server.requests)) == (True, 3)


def test_processes_may_make_and_fill_a_cache_file_at_the_same_time(tmp_path: Path) -> None:
    program = """
import sys
from future_l1_verl.rewards.judge.cache import VerdictCache
print("ready", flush=True)
for line in sys.stdin:
    VerdictCache(line.strip()).put(sys.argv[1].encode(), True)
    print("done", flush=True)
"""
    names = ["a", "b", "c", "d"]
    processes = [
        subprocess.Popen([sys.executable, "-c", program, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for file in [str(tmp_path / f"{n}.sqlite") for n in range(200)]:
        for process in processes:
            process.stdin.write(f"{file}\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["done\n"] * 4
        assert [verdict_cache.VerdictCache(file).get(name.encode()) for name in names] == [True] * 4
    for process in processes:
        process.communicate()


def test_a_failed_verdict_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script = lambda prompt, nth: says("hm" if nth == 0 else "no")
    judge = Judge(settings_of(server, attempts=1, cache=str(tmp_path / "verdicts.sqlite")))
    assert [ask(judge), ask(judge), ask(judge)] == [None, False, False]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer", ["left and / or right", " {truth} {question}\n", "{} {0} {answer!r} \\1 \\g<0> {{x}}", "火 🔥 </s>"]
)
def test_the_answer_reaches_the_judge_as_it_is(server: Server, tmp_path: Path, answer: str) -> None:
    # Audit row 19.
    (tmp_path / "prompt.txt").write_text('{"q": "{question}"}\n{truth}|{answer}|{answer}')
    ask(Judge(settings_of(server, prompt=str(tmp_path / "prompt.txt"))), "What {answer}?", answer, "T")
    ask(Judge(settings_of(server)), "Q", answer, "T")
    custom, ours = server.prompts()
    assert custom == f'{{"q": "What {{answer}}?"}}\nT|{answer}|{answer}'
    assert f"\n{answer}\n" in ours


@pytest.mark.parametrize("name", ["question", "truth", "answer"])
def test_a_prompt_without_a_placeholder_is_refused(server: Server, tmp_path: Path, name: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("{question} {truth} {answer}".replace(f"{{{name}}}", "{ " + name + " }"))
    with pytest.raises(ValueError, match=rf"prompt.txt.*{{{name}}}"):
        Judge(settings_of(server, prompt=str(file)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", "localhost:8000"),
        ("model", ""),
        ("mode", "judge_first"),
        ("concurrency", 0),
        ("timeout", 0.0),
        ("timeout", float("nan")),
        ("attempts", 0),
        ("attempts", 1.5),
        ("backoff", -1.0),
        ("max_tokens", 0),
        ("max_failure_rate", 1.1),
        ("request", None),
        ("request", ["top_p"]),
        ("request", {"model": "other"}),
        ("request", {"messages": []}),
        ("request", {"stream": True}),
        ("request", {"top_p": object()}),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        replace(JudgeSettings("http://localhost/v1", "judge"), **{name: value})


def knowing(right: str, wrong: str, mistaken: int = 0) -> Script:
    """Knows the examples of the check but for the first ``mistaken``."""

    def script(prompt: str, nth: int) -> Reply:
        index = next(i for i, example in enumerate(EXAMPLES) if example.answer in prompt)
        return says(right if EXAMPLES[index].right is (index >= mistaken) else wrong)

    return script


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        (knowing("Yes.", "No."), 0, "the judge is fit"),
        (knowing("Yes.", "No.", mistaken=1), 0, "the judge is fit"),
        (knowing("Yes.", "No.", mistaken=2), 1, "judge gives wrong verdicts on 2 of 6 examples"),
        (knowing("Sure, that is right.", "No."), 1, "judge does not follow the reply format in 3 of 6 replies.*Sure"),
        (lambda prompt, nth: Reply("no model named judge", 404), 1, "knows no such model.*no model named judge"),
        (lambda prompt, nth: DROPPED, 1, "does not answer: 6 of 6 requests failed"),
        (lambda prompt, nth: Reply("busy", 503), 1, "does not answer: 6 of 6 requests failed.*busy"),
    ],
)
def test_check_tells_a_fit_judge_from_others(
    server: Server, capsys: pytest.CaptureFixture[str], script: Script, status: int, message: str
) -> None:
    server.script = script
    assert main(["judge", "--check", server.url, "--model", "judge"]) == status
    assert re.search(message, capsys.readouterr().out, re.DOTALL)


def test_check_shows_each_question_with_both_verdicts(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = knowing("yes", "no", mistaken=1)
    main(["judge", "--check", server.url, "--model", "judge"])
    rows = capsys.readouterr().out.splitlines()[1 : 1 + len(EXAMPLES)]
    assert [row.startswith(example.question) for row, example in zip(rows, EXAMPLES, strict=True)] == [True] * 6
    assert [row.split()[-3:-1] for row in rows] == [["yes", "no"], ["yes", "yes"], ["yes", "yes"]] + [["no", "no"]] * 3


def test_check_takes_the_only_model_and_lists_several(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = knowing("yes", "no")
    server.models = ["large"]
    assert main(["judge", "--check", server.url]) == 0
    assert {request["model"] for request in server.requests} == {"large"}
    server.models = ["large", "small"]
    assert main(["judge", "--check", server.url]) == 1
    assert "serves 2 models; name one with --model: large, small" in capsys.readouterr().out


def test_check_tells_a_refused_list_from_a_server_that_is_away(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.listing = Reply("no such key", 401)
    assert main(["judge", "--check", server.url]) == 1
    said = capsys.readouterr().out
    assert "gives no list of models; name one with --model" in said and "401" in said and "unreachable" not in said


def test_check_sends_what_it_is_told_to(server: Server) -> None:
    server.script = knowing("<think>so</think>yes", "<think>so</think>no")
    fields = '{"max_tokens": null, "max_completion_tokens": 512}'
    assert main(["judge", "--check", server.url, "--max-tokens", "256", "--request", '{"seed": 7}']) == 0
    assert main(["judge", "--check", server.url, "--request", fields]) == 0
    first, last = server.requests[0], server.requests[-1]
    assert (first["max_tokens"], first["seed"]) == (256, 7)
    assert (last.get("max_tokens"), last["max_completion_tokens"]) == (None, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--request", "{seed: 7}"], "argument --request: must be a JSON object, not {seed: 7}"),
        (["--request", "[1]"], "must be a JSON object, not .1."),
        (["--request", '{"model": "m"}'], "request must be a mapping of further fields without model"),
        (["--max-tokens", "0"], "argument --max-tokens: must be at least 1, not 0"),
        (["--prompt", "nowhere.txt"], "nowhere.txt"),
        (["--api-key-file", "nowhere.key"], "nowhere.key"),
    ],
)
def test_check_refuses_what_makes_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["judge", "--check", "http://localhost:1/v1", "--model", "judge", *arguments]))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_check_says_that_nothing_listens(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    closed = Server()
    closed.server_close()
    for model, message in ([], "is unreachable"), (["--model", "judge"], "does not answer"):
        assert main(["judge", "--check", closed.url, *model]) == 1
        assert message in capsys.readouterr().out
