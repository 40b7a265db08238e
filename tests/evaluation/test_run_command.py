"""``evaluation run`` as a command, against a server of the model and one of the judge: exit codes, tables and messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Reply, Server, says, serving

from future_l1_verl.cli import main
from future_l1_verl.data.video import write_video
from future_l1_verl.evaluation import runs
from future_l1_verl.toy import tiny

# Two rows are right by rule, one is wrong, one does not parse.
ANSWERS = ["<answer>A</answer>", "<answer>up</answer>", "<answer>B</answer>", "up"]


@dataclass
class Setting:
    folder: Path
    model: Server
    judge: Server

    def run(self, task: str, *arguments: str, out: str = "run") -> int:
        where = ["--data", str(self.folder / f"{task}.json"), "--out", str(self.folder / out)]
        who = ["--model", str(self.folder / "model"), "--url", self.model.url]
        return main(["eval", "run", "--task", task, *where, *who, "--prompt", "direct", *arguments])

    @property
    def judged(self) -> list[str]:
        return ["--judge-url", self.judge.url, "--judge-model", "judge"]


def completion(prompt: str, nth: int) -> Reply:
    """What ``vllm serve`` says; the row is named in the question."""
    row = next(row for row in range(4) if f"Where is {row}?" in prompt)
    message = {"role": "assistant", "content": ANSWERS[row]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "token_ids": [7, 8]}
    return Reply(json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}))


def marks(prompt: str, nth: int) -> Reply:
    return says('{"reasoning": 4, "answer": 2}')


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny.build(folder / "model")
    write_video(folder / "clip.mp4", np.zeros((6, 32, 32, 3), np.uint8), 6)
    futurebench = [
        {"question_type": kind, "video_path": "clip.mp4"}
        | {"qa": {"Question": f"Where is {row}?", "Options": ["up", "down"], "Answer": "A"}}
        for row, kind in enumerate(["hop1", "hop2", "hop1", "hop5"])
    ]
    twiff = [
        {"video": "clip.mp4", "question": f"Where is {row}?", "question_images_index": [1, 2]}
        | {"answer": "It is up.", "reasoning_images_index": []}
        for row in range(4)
    ]
    (folder / "futurebench.json").write_text(json.dumps(futurebench))
    (folder / "twiffbench.json").write_text(json.dumps(twiff))
    return folder


@pytest.fixture
def setting(data: Path, tmp_path: Path) -> Iterator[Setting]:
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with serving() as model, serving() as judge:
        model.script, judge.script = completion, marks
        yield Setting(tmp_path, model, judge)


def summary(setting: Setting, out: str = "run") -> dict[str, Any]:
    return json.loads((setting.folder / out / runs.SUMMARY).read_text())


def test_a_result_has_a_summary_and_a_table_by_hops(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting.run("futurebench") == 0
    splits = summary(setting)["splits"]
    assert {split: (row["n"], row["missing"], row["parsed"]) for split, row in splits.items()} == {
        "1-hop": (2, 0, 1.0), "2-hop": (1, 0, 1.0), "interp": (1, 0, 0.0), "all": (4, 0, 0.75),
    }  # fmt: skip
    assert splits["all"]["scores"]["accuracy"]["mean"] == 0.5 and splits["1-hop"]["scores"]["accuracy"]["mean"] == 0.5
    shown = capsys.readouterr().out
    assert "interp" in shown and "0.500" in shown and "NOT A RESULT" not in shown
    found = runs.read_finished(setting.folder / "run")
    assert found.settings["decoding"]["max_tokens"] == 2048 and found.settings["decoding"]["temperature"] == 0.0
    assert all(len(record.frames) == 6 and record.roles == "tt" for record in found.records)
    (request, *_) = setting.model.requests
    assert (request["temperature"], request["max_tokens"]) == (0.0, 2048)

    # Started again, it asks nothing and says the same.
    asked = len(setting.model.requests)
    assert setting.run("futurebench") == 0
    assert len(setting.model.requests) == asked and capsys.readouterr().out == shown


def test_missing_verdicts_are_no_result_until_they_are_there(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting.judge.script = lambda prompt, nth: says("no idea") if "Where is 2?" in prompt else marks(prompt, nth)
    assert setting.run("twiffbench", *setting.judged) == 1
    assert "NOT A RESULT: 1 of 4 verdicts are missing" in " ".join(capsys.readouterr().out.split())
    assert summary(setting)["splits"]["all"]["missing"] == 1
    with pytest.raises(runs.RunError, match=r"is no result: 4 of 4 questions are answered \(.*\), 1 verdicts are missing"):
        runs.read_finished(setting.folder / "run")
    assert main(["eval", "aggregate", str(setting.folder / "run"), str(setting.folder / "run")]) == 2

    asked, setting.judge.script = len(setting.model.requests), marks
    assert setting.run("twiffbench", *setting.judged) == 0
    assert len(setting.model.requests) == asked
    assert "NOT A RESULT" not in capsys.readouterr().out
    scores = summary(setting)["splits"]["all"]["scores"]
    # Three answers have 4 and 2, the one that does not parse has 0 and 0.
    assert {name: score["mean"] for name, score in scores.items()} == {"reasoning": 3.0, "answer": 1.5, "average": 2.25}
    assert runs.read_finished(setting.folder / "run").settings["decoding"]["max_tokens"] == 4096


def test_a_judge_that_refuses_is_said_in_a_line(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    setting.judge.script = lambda prompt, nth: Reply("no such key", status=401)
    assert setting.run("twiffbench", *setting.judged) == 2
    captured = capsys.readouterr()
    assert "it wants another API key" in captured.err and "Traceback" not in captured.err
    assert not (setting.folder / "run" / runs.SUMMARY).exists()


def test_a_folder_is_not_gone_on_with_otherwise(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting.run("futurebench") == 0
    asked = len(setting.model.requests)
    assert setting.run("futurebench", "--temperature", "1", "--max-frames", "4") == 2
    assert f"{setting.folder}/run: was begun with other decoding, max_frames;" in capsys.readouterr().err
    assert len(setting.model.requests) == asked


# Ten rows that are bad in ten ways, and how the reason begins.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"video_path": "gone.mp4"}, "video or image is missing: "),
    ({"video_path": "no_clip.mp4"}, ""),
    ({"video_path": "video_dataset/clip.mp4"}, "the future would be shown: "),
    ({"question_type": "hop4"}, "question_type is not one of hop1, hop2, hop3, hop5: "),
    ({"qa": {"Question": "Where?", "Options": ["up", "down"], "Answer": "C"}}, "no option is the answer: "),
    ({"qa": {"Question": "Where?", "Options": ["up", "up"], "Answer": "A"}}, "options cannot be used: "),
    ({"qa": {"Question": "<|vision_start|>?", "Options": ["up", "down"], "Answer": "A"}}, "text holds a special token: "),
    ({"qa": {"Question": "Where is 9000?", "Options": ["up", "down"], "Answer": "A"}}, ""),
    ({"qa": "{"}, "qa is not JSON: "),
    ({"frame_idx": [1, 2]}, "frames are named in an unknown way: "),
]


def test_forty_rows_of_which_ten_are_bad(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty are answered, ten listed with their reasons; the same command goes on once they are mended."""
    (setting.folder / "no_clip.mp4").write_text("no clip")
    (setting.folder / "video_dataset").mkdir()
    (setting.folder / "video_dataset/clip.mp4").write_bytes((setting.folder / "clip.mp4").read_bytes())
    rows = (json.loads((setting.folder / "futurebench.json").read_text()) * 10)[:40]
    mixed = [row | BAD[number // 4][0] if number % 4 == 1 else row for number, row in enumerate(rows)]
    data = setting.folder / "futurebench.json"
    data.unlink()
    data.write_text(json.dumps(mixed))

    def refusing(prompt: str, nth: int) -> Reply:
        too_long = {"object": "error", "message": "This model's maximum context length is 512 tokens.", "code": 400}
        return Reply(json.dumps(too_long), status=400) if "Where is 9000?" in prompt else completion(prompt, nth)

    setting.model.script = refusing
    assert setting.run("futurebench") == 1
    assert len(runs.records(setting.folder / "run")) == 30
    listed = {row.source: row.reason for row in runs.unanswered(setting.folder / "run")}
    assert listed.keys() == {f"{data}: row {4 * place + 1}" for place in range(10)}
    for place, (_, reason) in enumerate(BAD):
        assert listed[f"{data}: row {4 * place + 1}"].startswith(reason)
    assert "cannot be decoded" in listed[f"{data}: row 5"] and "maximum context length" in listed[f"{data}: row 29"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "10 of 40 questions have no answer" in shown and "NOT A RESULT: 0 of 30 verdicts are missing, 10 questions" in shown
    with pytest.raises(runs.RunError, match="30 of 40 questions are answered"):
        runs.read_finished(setting.folder / "run")

    asked = len(setting.model.requests)
    data.write_text(json.dumps(rows))
    assert setting.run("futurebench") == 0
    assert len(setting.model.requests) - asked == 10 and not runs.unanswered(setting.folder / "run")


def test_data_of_which_nothing_can_be_asked_are_refused(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting.run("futurebench", "--videos", str(setting.folder / "model")) == 2
    assert "futurebench.json: row 0: video or image is missing: " in capsys.readouterr().err
    assert setting.model.requests == [] and not (setting.folder / "run").exists()


def test_a_server_without_the_api_is_said_in_a_line(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting.run("futurebench", "--url", setting.model.url.removesuffix("/v1") + "/elsewhere") == 2
    captured = capsys.readouterr()
    assert "has no list of models" in captured.err and "ends with /v1" in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("flag", ["--limit", "--max-frames", "--concurrency", "--max-tokens"])
def test_numbers_that_make_no_sense_are_refused(flag: str, setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        setting.run("futurebench", flag, "0")
    assert f"{flag}: must be at least 1, not 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "[1]"], "argument --engine: must be a JSON object, not [1]"),
        (["--judge-request", "{"], "argument --judge-request: must be a JSON object, not {"),
        (["--temperature", "-1"], "argument --temperature: must be from 0 to 2, not -1"),
        (["--temperature", "nan"], "argument --temperature: must be from 0 to 2, not nan"),
        (["--top-p", "0"], "argument --top-p: must be from 1e-06 to 1, not 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], message: str, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        setting.run("futurebench", *arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": ', "config.json is not JSON: "),
        ('{"trained_shape": "text_only", "trained_observed": "movie"}', "'movie'"),
    ],
)
def test_a_checkpoint_that_says_no_sense_is_refused_in_a_line(
    config: str, message: str, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    (setting.folder / "odd").mkdir()
    (setting.folder / "odd/config.json").write_text(config)
    assert setting.run("futurebench", "--model", str(setting.folder / "odd")) == 2
    assert message in capsys.readouterr().err


def test_places_that_cannot_be_written_or_read_are_said_in_a_line(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    (setting.folder / "file").write_text("")
    assert setting.run("futurebench", out="file") == 2
    assert "file" in capsys.readouterr().err
    assert main(["report", "--run", str(setting.folder), "--stage", "base"]) == 2
    assert capsys.readouterr().err == "future-l1 report: 'base' is not of the form NAME=DIR\n"


def test_half_an_answer_of_a_server_is_none(setting: Setting) -> None:
    whole = json.loads(completion("Where is 0?", 0).body)
    for change, says_what in (
        ({"finish_reason": "abort"}, "finish_reason 'abort'"),
        ({"finish_reason": "content_filter"}, "finish_reason 'content_filter'"),
        ({"message": {"role": "assistant", "content": None}}, "no text"),
    ):
        body = json.dumps(whole | {"choices": [whole["choices"][0] | change]})
        setting.model.script = lambda prompt, nth, body=body: Reply(body)
        assert setting.run("futurebench", "--limit", "1", out=says_what) == 1
        (row,) = runs.unanswered(setting.folder / says_what)
        assert "sent no whole answer" in row.reason and says_what in row.reason
        assert runs.records(setting.folder / says_what) == []
    body = json.dumps(whole | {"choices": [whole["choices"][0] | {"token_ids": None}]})
    setting.model.script = lambda prompt, nth: Reply(body)
    with pytest.raises(RuntimeError, match="sends no token ids"):
        setting.run("futurebench", "--limit", "1", out="ids")
