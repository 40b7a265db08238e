"""Asking and grading: with an engine that replies by script, and a judge over real HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import DROPPED, Server, says, serving
from chat_server import Reply as Said
from evaluation_rows import changed, question, style
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl import progress
from future_l1_verl.data.prompts import Message
from future_l1_verl.data.rows import Row
from future_l1_verl.data.video import write_video
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.engines import Reply, Unanswerable
from future_l1_verl.evaluation.interventions import Interventions
from future_l1_verl.evaluation.prompting import prompt
from future_l1_verl.evaluation.runner import Grader, RunOptions, run
from future_l1_verl.evaluation.runs import RunError
from future_l1_verl.evaluation.scoring import is_result, summarise
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.tokens import LATENT, LATENT_END, LATENT_START, LatentSettings, LatentTokens
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable

TOKENS = LatentTokens(start=1, latent=2, end=3)
SETTINGS = LatentSettings(TOKENS, max_latents=4)
OPTIONS = ["up", "down", "left"]
TURN = 60.0  # seconds; an order of replies that cannot come about fails instead of hanging


def reply_to(row: int) -> Reply:
    """Every third answer is right, every fifth does not parse; spans of 4 and 2 latents, of 4, and none, by turns."""
    spans = [[4, 2], [4], []][row % 3]
    ids, text = [10], "So"
    for span in spans:
        ids += [TOKENS.start, *[TOKENS.latent] * span, TOKENS.end, 11]
        text += LATENT_START + LATENT * span + LATENT_END + " then"
    text += f" <answer>{'up' if row % 3 == 0 else 'down'}</answer>" if row % 5 != 4 else " up"
    return Reply(text, [*ids, 12], "stop", latents_of(row, sum(spans)))


def latents_of(row: int, count: int) -> torch.Tensor:
    return torch.tensor([[row, slot, 0.1] for slot in range(count)], dtype=torch.bfloat16).view(count, 3)


@dataclass
class Scripted:
    """An engine that replies in the ``order`` of rows if there is one, not before ``crowd`` questions were there at once, and
    dies after so many replies."""

    script: Callable[[int], Reply] = reply_to
    order: Sequence[int] | None = None
    crowd: int = 1
    dies_after: int | None = None
    asked: list[int] = field(default_factory=list)
    given: dict[int, Intervention | None] = field(default_factory=dict)
    chats: dict[int, Sequence[Message]] = field(default_factory=dict)
    replied: list[int] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    starts: int = 0
    closed: int = 0

    async def start(self) -> Scripted:
        self.starts += 1
        return self

    async def ask(self, chat: Sequence[Message], row: int, intervention: Intervention | None) -> Reply:
        self.asked.append(row)
        self.given[row], self.chats[row] = intervention, chat
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        async with asyncio.timeout(TURN):
            while self.peak < self.crowd or (self.order is not None and self.order[len(self.replied)] != row):
                await asyncio.sleep(0.001)
        if self.dies_after is not None and len(self.replied) >= self.dies_after:
            raise RuntimeError("EngineCore died")
        self.replied.append(row)
        self.in_flight -= 1
        return self.script(row)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, np.zeros((8, 16, 16, 3), np.uint8), 8)
    return str(path)


def multiple_choice(clip: str, count: int) -> list[Row]:
    text = "<image><image>Where?\nA. up\nB. down\nC. left"
    return [
        question(
            number=row,
            source=f"rows.json: row {row}",
            id=f"q{row}",
            split=f"{row % 2 + 1}-hop",
            text=text,
            truth="A",
            options=OPTIONS,
            video=clip,
            image=[1, 8],
            future=[5],
        )
        for row in range(count)
    ]


def open_ended(clip: str, count: int) -> list[Row]:
    """No answer is right by rule, so that the judge is asked about each that parses, with its own question."""
    return [
        changed(row, text=f"<image><image>Where is {row.number}?", truth="nowhere", options=[])
        for row in multiple_choice(clip, count)
    ]


def ask(
    folder: Path, questions: Sequence[Row], engine: Scripted, judge: Judge | None = None, marks: str | None = None, **how: Any
) -> list[runs.Record]:
    """Runs as a command does: half a line at the end is cut off first."""
    runs.begin(folder, {})
    options = RunOptions(**{"style": style("Answer."), "max_frames": 4, "concurrency": 16, "latent": SETTINGS} | how)
    asyncio.run(run(questions, engine.start, Grader(judge, marks, 4), options, folder))
    return runs.records(folder)


def rows_written(folder: Path) -> list[int]:
    return [json.loads(line)["row"] for line in (folder / runs.ANSWERS).read_text().splitlines()]


# What is written


def test_a_line_says_all_of_an_answer(clip: str, tmp_path: Path) -> None:
    questions, engine = multiple_choice(clip, 3), Scripted()
    found = ask(tmp_path, questions, engine)
    assert found[0] == runs.Record(
        row=0, id="q0", split="1-hop", prompt_sha256=prompt(questions[0], style("Answer."), 4).sha256,
        problem="Where?\nA. up\nB. down\nC. left", options=OPTIONS, truth="A", video=clip, frames=[1, 6], future=[4],
        text=reply_to(0).text, token_ids=reply_to(0).token_ids, roles="t" + "tfllle" + "t" + "tfls" + "tt", spans=[4, 2],
        finish_reason="stop", answer="up", parsed=True, scores={"accuracy": 1.0},
    )  # fmt: skip
    assert [record.spans for record in found] == [[4, 2], [4], []]
    assert [record.scores for record in found] == [{"accuracy": 1.0}, {"accuracy": 0.0}, {"accuracy": 0.0}]
    assert [message["role"] for message in engine.chats[0]] == ["system", "user"]
    assert (engine.starts, engine.closed) == (1, 1)
    assert not (tmp_path / runs.LATENTS).exists()


def test_a_reply_without_one_answer_is_wrong_and_counted_as_unparsed(clip: str, tmp_path: Path) -> None:
    two = "<answer>up</answer><answer>down</answer>"
    texts = ["up", two, "<answer>up", "<answer>up or down</answer>", "<answer>up</answer>"]
    engine = Scripted(lambda row: Reply(texts[row], [10], "length", torch.empty(0, 0)))
    found = ask(tmp_path, multiple_choice(clip, 5), engine)
    assert [record.parsed for record in found] == [False, False, False, False, True]
    whole = summarise(found)["all"]
    assert (whole["n"], whole["missing"], whole["parsed"], whole["scores"]["accuracy"]["mean"]) == (5, 0, 0.2, 0.2)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)))
def test_the_order_in_which_answers_come_changes_nothing(
    clip: str, tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder, plain = tmp_path_factory.mktemp("ordered"), tmp_path_factory.mktemp("plain")
    found = ask(folder, multiple_choice(clip, 8), Scripted(order=order))
    assert rows_written(folder) == order
    assert found == ask(plain, multiple_choice(clip, 8), Scripted(), concurrency=1)
    assert summarise(found) == summarise(runs.records(plain))


def test_so_many_questions_are_put_at_once_and_no_more(clip: str, tmp_path: Path) -> None:
    engine = Scripted(crowd=3)
    ask(tmp_path, multiple_choice(clip, 12), engine, concurrency=3)
    assert engine.peak == 3 and sorted(engine.asked) == list(range(12))


def test_latents_are_kept_as_the_engine_gave_them(clip: str, tmp_path: Path) -> None:
    found = ask(tmp_path, multiple_choice(clip, 6), Scripted(), save_latents=True)
    for record in found:
        kept = runs.latents(tmp_path, record.row)
        assert kept.dtype == torch.bfloat16 and torch.equal(kept, latents_of(record.row, sum(record.spans)))


@pytest.mark.parametrize("latents", [3, 5, 0])
def test_latents_and_slots_that_do_not_fit_end_the_run_with_the_row(latents: int, clip: str, tmp_path: Path) -> None:
    def script(row: int) -> Reply:
        return reply_to(row) if row != 4 else reply_to(row)._replace(latents=latents_of(row, latents))

    engine = Scripted(script, order=list(range(6)))
    with pytest.raises(RuntimeError, match=rf"rows\.json: row 4: 4 slots but {latents} latents came back"):
        ask(tmp_path, multiple_choice(clip, 6), engine, save_latents=True)
    assert 4 not in rows_written(tmp_path) and not (tmp_path / "latents/4.safetensors").exists()
    assert {0, 1, 2, 3} <= set(rows_written(tmp_path)) and engine.closed == 1


def test_a_checkpoint_without_latents_has_text_alone(clip: str, tmp_path: Path) -> None:
    """Whatever ids it gives to its tokens."""
    engine = Scripted(lambda row: reply_to(row)._replace(latents=torch.empty(0, 0)))
    found = ask(tmp_path, multiple_choice(clip, 3), engine, latent=None)
    assert [(record.roles, record.spans) for record in found] == [("t" * len(record.token_ids), []) for record in found]


# Questions that cannot be asked


def test_a_question_without_an_answer_is_listed_with_its_reason_and_asked_again(clip: str, tmp_path: Path) -> None:
    """Whether its clip does not decode or the engine refuses it; the others are kept."""
    (tmp_path / "broken.mp4").write_text("no clip")
    whole = multiple_choice(clip, 6)
    questions = [changed(row, video=str(tmp_path / "broken.mp4")) if row.number == 2 else row for row in whole]

    def refuses(row: int) -> Reply:
        if row == 4:
            raise Unanswerable("the prompt has 9000 tokens, the engine takes 8192")
        return reply_to(row)

    engine = Scripted(refuses)
    found = ask(tmp_path / "run", questions, engine, concurrency=1)
    assert [record.row for record in found] == [0, 1, 3, 5] and engine.closed == 1
    broken, long = sorted(runs.unanswered(tmp_path / "run"))
    assert broken.source == "rows.json: row 2" and "broken.mp4: cannot be decoded" in broken.reason
    assert long == ("rows.json: row 4", "the prompt has 9000 tokens, the engine takes 8192")
    assert not is_result(summarise(found), unanswered=2)

    engine = Scripted()
    again = ask(tmp_path / "run", whole, engine)
    assert sorted(engine.asked) == [2, 4] and runs.unanswered(tmp_path / "run") == []
    assert again == ask(tmp_path / "whole", whole, Scripted())


# Ends, and going on


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("kept", range(7))
def test_an_engine_that_dies_loses_no_answer_and_only_the_others_are_asked_again(
    kept: int, concurrency: int, clip: str, tmp_path: Path
) -> None:
    questions, dying = multiple_choice(clip, 7), Scripted(dies_after=kept)
    with pytest.raises(RuntimeError, match="EngineCore died"):
        ask(tmp_path, questions, dying, concurrency=concurrency)
    assert dying.closed == 1
    before = runs.records(tmp_path)
    assert sorted(record.row for record in before) == sorted(dying.replied) and len(dying.replied) == kept
    engine = Scripted()
    found = ask(tmp_path, questions, engine)
    assert sorted(engine.asked) == sorted(set(range(7)) - set(dying.replied))
    assert sorted(rows_written(tmp_path)) == list(range(7))
    assert [record for record in found if record.row in dying.replied] == before
    assert found == ask(tmp_path / "whole", questions, Scripted())


def test_a_finished_run_is_finished(clip: str, tmp_path: Path) -> None:
    ask(tmp_path, multiple_choice(clip, 5), Scripted())
    before, engine = (tmp_path / runs.ANSWERS).read_bytes(), Scripted()
    ask(tmp_path, multiple_choice(clip, 5), engine)
    assert engine.starts == 0 and (tmp_path / runs.ANSWERS).read_bytes() == before


def test_half_a_line_is_asked_again(clip: str, tmp_path: Path) -> None:
    questions = multiple_choice(clip, 5)
    whole = ask(tmp_path, questions, Scripted(order=[0, 1, 2, 3, 4]))
    text = (tmp_path / runs.ANSWERS).read_text()
    (tmp_path / runs.ANSWERS).write_text(text[:-9])
    engine = Scripted()
    assert ask(tmp_path, questions, engine) == whole
    assert engine.asked == [4] and (tmp_path / runs.ANSWERS).read_text() == text


@pytest.mark.parametrize(
    ("change", "says_what"),
    [
        ({"id": "other"}, "row 1 has the id 'other', and 'q1' where it was answered"),
        ({"truth": "B"}, "row 1 has the truth 'B', and 'A' where it was answered"),
        ({"options": ["up", "down"]}, "row 1 has the options ['up', 'down'], and ['up', 'down', 'left'] where"),
        ({"split": "3-hop"}, "row 1 has the split '3-hop', and '2-hop' where"),
        ({"text": "<image><image>When?"}, "row 1 has the problem 'When?', and 'Where?"),
        (None, "row 1 has the id None, and 'q1' where it was answered"),
    ],
)
def test_answers_to_other_questions_are_not_gone_on_with(
    change: dict[str, Any] | None, says_what: str, clip: str, tmp_path: Path
) -> None:
    questions = multiple_choice(clip, 2)
    ask(tmp_path, questions, Scripted())
    others = questions[:1] if change is None else [questions[0], changed(questions[1], **change)]
    engine = Scripted()
    with pytest.raises(RunError, match=f"{tmp_path}: the data have changed: {re.escape(says_what)}"):
        ask(tmp_path, others, engine)
    assert engine.starts == 0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is said whenever something is done."""
    monkeypatch.setattr(progress, "INTERVAL", 0)


@pytest.mark.usefixtures("at_once")
def test_the_bar_counts_what_is_finished(clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError):
        ask(tmp_path, multiple_choice(clip, 7), Scripted(dies_after=3), concurrency=1)
    assert counted(capsys)[-1] == "3/7"
    ask(tmp_path, multiple_choice(clip, 7), Scripted())
    shown = counted(capsys)
    assert (shown[0], shown[-1]) == ("3/7", "7/7")


def counted(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"answers: .*? (\d+/\d+) ", capsys.readouterr().err)


# Interventions


def test_an_engine_is_told_what_to_put_in_and_the_donor_is_noted(clip: str, tmp_path: Path) -> None:
    questions = multiple_choice(clip, 6)
    intact = ask(tmp_path / "intact", questions, Scripted(), save_latents=True)
    interventions = Interventions("swap", runs.Run(tmp_path / "intact", {"save_latents": True}, intact))
    engine = Scripted()
    found = ask(tmp_path / "swap", questions, engine, interventions=interventions)
    # Rows 0 and 3 have two spans, 1 and 4 one, 2 and 5 none.
    assert [record.donor for record in found] == [3, 4, None, 0, 1, None]
    for record in found:
        if record.donor is None:
            assert engine.given[record.row] is None
        else:
            assert torch.equal(engine.given[record.row].latents, runs.latents(tmp_path / "intact", record.donor))


def test_spans_that_are_dropped_have_no_slots_and_others_keep_theirs(clip: str, tmp_path: Path) -> None:
    """An answer that had no span when it was left alone may have one by now."""
    questions = multiple_choice(clip, 3)
    intact = ask(tmp_path / "intact", questions, Scripted())
    interventions = Interventions("drop", runs.Run(tmp_path / "intact", {}, intact))

    def script(row: int) -> Reply:
        if row == 2:
            return reply_to(1)
        return Reply("<answer>up</answer>", [TOKENS.start, TOKENS.end, 12], "stop", torch.empty(0, 0))

    found = ask(tmp_path / "drop", questions, Scripted(script), interventions=interventions)
    assert [record.roles for record in found] == ["tet", "tet", "t" + "tfllle" + "tt"]
    assert [record.spans for record in found] == [[], [], [4]]


# Judges


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.script = lambda prompt, nth: says("yes")
        yield running


def judge_at(server: Server, **changes: Any) -> Judge:
    return Judge(replace(JudgeSettings(server.url, "judge", backoff=0.001, max_failure_rate=1.0, attempts=2), **changes))


PARSED = [row for row in range(7) if row % 5 != 4]  # of these the judge is asked


def test_open_answers_are_judged_and_those_without_an_answer_are_not(server: Server, clip: str, tmp_path: Path) -> None:
    server.script = lambda prompt, nth: says("yes" if "Where is 3?" in prompt else "no")
    found = ask(tmp_path, open_ended(clip, 7), Scripted(), judge_at(server))
    assert [record.row for record in found if record.scores == {"accuracy": 1.0}] == [3]
    assert len(server.requests) == len(PARSED) and is_result(summarise(found))
    assert not any("<image>" in prompt for prompt in server.prompts())


@pytest.mark.usefixtures("at_once")
def test_texts_outlive_a_judge_that_is_away_and_only_the_judge_is_asked_again(
    server: Server, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = open_ended(clip, 7)
    server.away = True
    found = ask(tmp_path, questions, Scripted(), judge_at(server))
    summary = summarise(found)
    assert [record.row for record in found if record.scores is None] == PARSED
    assert all(
        "no verdict; the judge's last error: Connection error. Server disconnected" in found[row].error for row in PARSED
    )
    # What needs no judge has its verdict, and makes no score of one answer in seven.
    assert (summary["all"]["n"], summary["all"]["missing"]) == (7, len(PARSED)) and not is_result(summary)

    server.away = False
    capsys.readouterr()
    engine = Scripted()
    judged = ask(tmp_path, questions, engine, judge_at(server))
    assert engine.starts == 0 and len(set(server.prompts()[-len(PARSED) :])) == len(PARSED)
    assert is_result(summarise(judged)) and all(record.error is None for record in judged)
    assert [(record.text, record.token_ids) for record in judged] == [(record.text, record.token_ids) for record in found]
    assert counted(capsys)[0] == "1/7"
    # The same as if nothing had gone wrong.
    assert judged == ask(tmp_path / "whole", questions, Scripted(), judge_at(server))


def test_some_verdicts_that_fail_are_asked_for_again_alone(server: Server, clip: str, tmp_path: Path) -> None:
    server.script = lambda prompt, nth: DROPPED if "Where is 2?" in prompt else says("yes")
    found = ask(tmp_path, open_ended(clip, 7), Scripted(), judge_at(server))
    assert [record.row for record in found if record.scores is None] == [2]
    server.script, before = lambda prompt, nth: says("no"), len(server.requests)
    found = ask(tmp_path, open_ended(clip, 7), Scripted(), judge_at(server))
    assert len(server.requests) == before + 1
    assert [record.row for record in found if record.scores == {"accuracy": 1.0}] == [0, 1, 3, 5, 6]


def test_a_judge_that_refuses_ends_the_run_with_its_reason_and_keeps_texts(server: Server, clip: str, tmp_path: Path) -> None:
    """Also of the answers that wait for a verdict when it refuses another one."""
    questions = open_ended(clip, 4)

    def script(prompt: str, nth: int) -> Said:
        if "Where is 0?" not in prompt:
            return replace(says("yes"), after=60.0)
        for _ in range(2000):  # until the others wait
            if len(server.requests) == 4:
                break
            server.stopped.wait(0.005)
        return Said("no such key", status=401)

    server.script, engine = script, Scripted()
    with pytest.raises(JudgeUnavailable, match=r"it wants another API key.*the last error: HTTP 401: no such key"):
        ask(tmp_path, questions, engine, judge_at(server))
    found = runs.records(tmp_path)
    assert [record.row for record in found] == [0, 1, 2, 3] and engine.closed == 1
    assert all(record.scores is None for record in found) and "another API key" in found[0].error
    assert all("no verdict; the run ended before" in record.error for record in found[1:])

    server.script, engine = lambda prompt, nth: says("yes"), Scripted()
    assert is_result(summarise(ask(tmp_path, questions, engine, judge_at(server))))
    assert engine.starts == 0


def test_an_engine_that_dies_takes_no_text_along_that_waits_for_its_verdict(server: Server, clip: str, tmp_path: Path) -> None:
    server.script = lambda prompt, nth: replace(says("yes"), after=60.0)
    questions, dying = open_ended(clip, 4), Scripted(order=[0, 1, 2, 3], dies_after=3)
    with pytest.raises(RuntimeError, match="EngineCore died"):
        ask(tmp_path, questions, dying, judge_at(server))
    assert [record.row for record in runs.records(tmp_path)] == [0, 1, 2]
    server.script, engine = lambda prompt, nth: says("yes"), Scripted()
    assert is_result(summarise(ask(tmp_path, questions, engine, judge_at(server))))
    assert engine.asked == [3]


def test_marks_are_averaged(server: Server, clip: str, tmp_path: Path) -> None:
    """Rows 0 to 6 get answer marks of 0 to 5 but for row 4, which does not parse."""

    def script(prompt: str, nth: int) -> Said:
        row = int(re.search(r"Where is (\d)\?", prompt)[1])
        return says(json.dumps({"reasoning": 5, "answer": min(row, 5)}))

    server.script = script
    found = ask(tmp_path, open_ended(clip, 7), Scripted(), judge_at(server), marks="ours")
    assert found[3].scores == {"reasoning": 5.0, "answer": 3.0}
    assert found[4].scores == {"reasoning": 0.0, "answer": 0.0} and not found[4].parsed
    scores = summarise(found)["all"]["scores"]
    assert scores["reasoning"]["mean"] == pytest.approx(30 / 7)
    assert scores["answer"]["mean"] == pytest.approx((0 + 1 + 2 + 3 + 0 + 5 + 5) / 7)
    assert scores["average"]["mean"] == pytest.approx((30 / 7 + 16 / 7) / 2)


def test_marks_without_a_verdict_are_missing_and_no_zero(server: Server, clip: str, tmp_path: Path) -> None:
    server.script = lambda prompt, nth: says("yes" if "Where is 2?" in prompt else '{"reasoning": 4, "answer": 2}')
    found = ask(tmp_path, open_ended(clip, 4), Scripted(), judge_at(server), marks="ours")
    whole = summarise(found)["all"]
    assert (whole["n"], whole["missing"], whole["scores"]["average"]["mean"]) == (4, 1, 3.0)
