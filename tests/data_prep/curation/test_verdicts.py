"""Verdicts on rollouts by rule and by a judge that misbehaves on command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from chat_server import Reply, Server, says, serving

from data_prep.curation.patience import Outage, Patience
from data_prep.curation.verdicts import Asked, Verdicts
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.judge.settings import JudgeSettings

TRUTH = "the left wall"
QUESTION = "What does it hit?"
RIGHT, WRONG, UNPARSED = Grade(True, True), Grade(False, True), Grade(False, False)
WALLS = ["the left wall", "the right wall"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running_server:
        running_server.script = lambda prompt, nth: says(verdict(judged(prompt)))
        yield running_server


def judged(prompt: str) -> str:
    """The answer that a prompt asks the judge about."""
    return prompt.split("Answer to judge:\n")[1].split("\n\nThe answer is right if")[0]


def verdict(answer: str) -> str:
    """This judge knows that port is left, which no rule does."""
    return "yes" if "port" in answer else "no"


def settings_of(server: Server) -> JudgeSettings:
    return JudgeSettings(server.url, "judge", backoff=0.01, attempts=2, concurrency=4)


def asked(answer: str, options: list[str] | None = None) -> Asked:
    return Asked(f"<reason>r</reason><answer>{answer}</answer>", QUESTION, TRUTH, options or [])


def answers_sent(server: Server) -> list[str]:
    """Without those of looks at whether the judge is well."""
    return sorted(judged(prompt) for prompt in server.prompts() if QUESTION in prompt)


def test_the_rule_comes_first_and_the_judge_decides_the_rest(server: Server) -> None:
    verdicts = Verdicts(settings_of(server), Patience())
    found = verdicts.grades([
        asked("Left wall."),
        asked("the port side"),
        asked("the ceiling"),
        asked("B", WALLS),
        asked("the port side", WALLS),  # multiple choice is the rule's alone, and it names no option
        asked("A", WALLS),
    ])  # fmt: skip
    assert found == [RIGHT, RIGHT, WRONG, WRONG, UNPARSED, RIGHT]
    assert answers_sent(server) == ["the ceiling", "the port side"]
    assert verdicts.calls == 2


def test_a_judge_alone_is_asked_whatever_the_rule_says(server: Server) -> None:
    verdicts = Verdicts(replace(settings_of(server), mode="judge_only"), Patience())
    assert verdicts.grades([asked("left wall"), asked("port", WALLS)]) == [WRONG, RIGHT]
    assert verdicts.calls == 2


@pytest.mark.parametrize("mode", ["rule_first", "judge_only"])
def test_a_reply_without_an_answer_is_unparsed_and_nobody_is_asked(mode: str, server: Server) -> None:
    texts = ["", "port", "<answer>port", "<answer></answer>", "<answer>port</answer><answer>port</answer>"]
    verdicts = Verdicts(replace(settings_of(server), mode=mode), Patience())
    assert verdicts.grades([Asked(text, QUESTION, TRUTH, []) for text in texts]) == [UNPARSED] * len(texts)
    assert not server.requests
    assert verdicts.calls == 0


def test_without_a_judge_the_rule_decides_all() -> None:
    verdicts = Verdicts(None, Patience())
    found = verdicts.grades([asked("left wall"), asked("the port side"), asked("B", WALLS), Asked("left", QUESTION, TRUTH, [])])
    assert found == [RIGHT, WRONG, WRONG, UNPARSED]
    assert verdicts.calls == 0


def test_nothing_to_grade_asks_nobody(server: Server) -> None:
    assert Verdicts(settings_of(server), Patience()).grades([]) == []
    assert not server.requests


@pytest.mark.parametrize("reply", [says("That depends."), Reply(status=500), Reply(drop=True)], ids=["unclear", "500", "drop"])
def test_what_a_healthy_judge_cannot_decide_has_a_reason_after_the_last_round(reply: Reply, server: Server) -> None:
    healthy = server.script
    server.script = lambda prompt, nth: reply if "puzzle" in judged(prompt) else healthy(prompt, nth)
    verdicts = Verdicts(settings_of(server), Patience(rounds=3, outage=60, pause=0.01))
    others = ["port", "ceiling", "port side"]
    *found, puzzle = verdicts.grades([asked(answer) for answer in [*others, "a puzzle"]])
    assert found == [RIGHT, WRONG, RIGHT]
    assert isinstance(puzzle, str)
    assert puzzle
    # Two attempts in each of three rounds; the others were asked once.
    assert answers_sent(server) == sorted([*others, *["a puzzle"] * 6])
    assert verdicts.calls == len(others) + 3


@pytest.mark.parametrize("puzzles", [1, 5, 30])
def test_any_number_of_puzzles_costs_the_others_nothing(puzzles: int, server: Server) -> None:
    """In the last round all verdicts fail, more than may, and the judge counts as unavailable."""
    healthy = server.script
    server.script = lambda prompt, nth: says("That depends.") if "puzzle" in judged(prompt) else healthy(prompt, nth)
    answers = [f"puzzle {n}" for n in range(puzzles)] + [f"port {n}" for n in range(60 - puzzles)]
    verdicts = Verdicts(settings_of(server), Patience(rounds=3, outage=60, pause=0.01))
    found = dict(zip(answers, verdicts.grades([asked(answer) for answer in answers]), strict=True))
    assert [found[answer] for answer in answers[puzzles:]] == [RIGHT] * (60 - puzzles)
    assert all(isinstance(found[answer], str) for answer in answers[:puzzles])


def test_a_judge_that_comes_to_a_verdict_later_is_asked_again(server: Server) -> None:
    healthy = server.script
    server.script = lambda prompt, nth: says("Hm.") if QUESTION in prompt and nth < 4 else healthy(prompt, nth)
    verdicts = Verdicts(settings_of(server), Patience(rounds=3, outage=60, pause=0.01))
    assert verdicts.grades([asked("port"), asked("ceiling")]) == [RIGHT, WRONG]
    assert verdicts.calls == 2 * 3


def test_calls_are_counted_over_all_texts_graded_and_equal_ones_asked_once(server: Server) -> None:
    verdicts = Verdicts(settings_of(server), Patience())
    verdicts.grades([asked("port"), asked("ceiling")])
    assert verdicts.calls == 2
    assert verdicts.grades([asked("floor"), asked("left wall"), *[asked("port side")] * 5]) == [WRONG, *[RIGHT] * 6]
    assert verdicts.calls == len(answers_sent(server)) == 4


def test_a_text_that_the_judge_refuses_for_good_harms_no_other(server: Server) -> None:
    """As a server does with one longer than its context."""
    healthy = server.script
    server.script = lambda prompt, nth: Reply("too long", 400) if "puzzle" in judged(prompt) else healthy(prompt, nth)
    verdicts = Verdicts(settings_of(server), Patience(rounds=3, outage=60, pause=0.01))
    answers = ["a puzzle", *(f"port {n}" for n in range(40))]
    puzzle, *found = verdicts.grades([asked(answer) for answer in answers])
    assert isinstance(puzzle, str)
    assert "too long" in puzzle
    assert found == [RIGHT] * 40


def test_an_outage_in_the_middle_marks_nothing(server: Server) -> None:
    """It begins at the tenth of forty requests and lasts a hundred times longer than all attempts at a verdict; not one round
    may be lost to it. Nothing keeps verdicts but the judge's memory."""
    returned: list[threading.Timer] = []

    def script(prompt: str, nth: int) -> Reply:
        if len(server.requests) >= 10 and not returned:
            server.away = True
            returned.append(threading.Timer(2, setattr, (server, "away", False)))
            returned[0].start()
        return says(verdict(judged(prompt)))

    server.script = script
    answers = [f"{'port' if n % 3 else 'ceiling'} {n}" for n in range(40)]
    verdicts = Verdicts(settings_of(server), Patience(rounds=1, outage=60, pause=0.1))
    assert verdicts.grades([asked(answer) for answer in answers]) == [RIGHT if n % 3 else WRONG for n in range(40)]
    assert returned
    assert len(answers_sent(server)) > len(answers)
    assert verdicts.calls > len(answers)  # those that failed were asked, too


def test_a_judge_that_stays_away_is_an_outage_and_says_why(server: Server) -> None:
    server.away = True
    verdicts = Verdicts(settings_of(server), Patience(rounds=3, outage=0.2, pause=0.05))
    with pytest.raises(Outage, match=rf"start again when it is back.*{server.url}"):
        verdicts.grades([asked("port")])
    # Nor is it another judge's fault: this one goes on when the server is back.
    server.away = False
    assert verdicts.grades([asked("port"), asked("ceiling")]) == [RIGHT, WRONG]
