"""The ``score`` command as users run it, with servers for model and judge."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chat_server import Reply, Server, says, serving

from data_prep.curation import candidates, scores
from data_prep.toy.synthetic.rendering import FPS
from future_l1_verl.data.video import write_video

pytestmark = pytest.mark.engine
CANDIDATES = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", np.zeros((12, 32, 32, 3), dtype=np.uint8), FPS)
    fixed = {
        "source": "made",
        "video": "clip.mp4",
        "answer": "left",
        "options": [],
        "image": [1, 2],
        "response": "",
        "category": "",
    }
    rows = [
        {"id": f"q{n}", "question": f"<image><image>Question {n}?", "reasoning_image": [5]} | fixed for n in range(CANDIDATES)
    ]
    candidates.write(tmp_path / "candidates.parquet", rows)
    return tmp_path


@pytest.fixture
def model() -> Iterator[Server]:
    """It is right with three frames, and with two in half of the questions."""
    with serving() as server:
        server.script = lambda prompt, nth: completion(prompt) if "image_url" in prompt else says("hello")
        yield server


def completion(prompt: str) -> Reply:
    frames = prompt.count('"type": "image_url"')
    right = frames == 3 or any(f"Question {n}?" in prompt for n in range(CANDIDATES // 2))
    message = {"role": "assistant", "content": f"<answer>{'left' if right else 'right'}, I think</answer>"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Reply(json.dumps(body))


@pytest.fixture
def judge() -> Iterator[Server]:
    with serving() as server:
        server.script = lambda prompt, nth: says("yes" if "left" in prompt.split("Answer to judge:")[1] else "no")
        yield server


def score(folder: Path, model: Server, judge: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        *[sys.executable, "-m", "data_prep.curation", "score", "--candidates", "candidates.parquet", "--videos", "."],
        *["--out", "out", "--model", "m", "--url", model.url, "--judge-url", judge.url, "--judge-model", "j"],
        *["--rollouts", "2", "--shard-size", "2", "--judge-cache", "verdicts.sqlite", *arguments],
    ]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=900)


def test_two_replicas_ask_the_servers_and_every_candidate_is_counted(folder: Path, model: Server, judge: Server) -> None:
    done = score(folder, model, judge, "--replicas", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = scores.read(folder / "out").to_pylist()
    assert {row["id"]: (row["base_correct"], row["hint_correct"]) for row in rows} == {
        f"q{n}": (2 if n < CANDIDATES // 2 else 0, 2) for n in range(CANDIDATES)
    }
    assert len([request for request in model.requests if "seed" in request]) == CANDIDATES * 2 * 2
    assert (folder / "verdicts.sqlite").exists()
    measured = [scores.measured(shard) for shard in scores.shards(folder / "out")]
    assert sum(one["rollouts"] for one in measured) == CANDIDATES * 2 * 2
    assert sum(one["generated_tokens"] for one in measured) == 4 * CANDIDATES * 2 * 2


def test_a_judge_that_refuses_ends_it_before_anything_is_asked(folder: Path, model: Server, judge: Server) -> None:
    judge.script = lambda prompt, nth: Reply("who are you?", status=401)
    done = score(folder, model, judge)
    assert done.returncode != 0
    assert "it wants another API key" in done.stderr
    assert not model.requests


def test_a_wrong_folder_of_videos_is_named(folder: Path, model: Server, judge: Server) -> None:
    (folder / "elsewhere").mkdir()
    done = score(folder, model, judge, "--videos", "elsewhere")
    assert "has none of the clips" in done.stderr and "elsewhere" in done.stderr
    assert not model.requests and not judge.requests


def test_failures_are_continued_only_with_the_same_settings(folder: Path, model: Server, judge: Server) -> None:
    model.script = lambda prompt, nth: Reply("no", status=400) if "Question 5?" in prompt else completion(prompt)
    assert score(folder, model, judge).returncode == 0
    before = {path.name for path in scores.shards(folder / "out")}
    done = score(folder, model, judge, "--retry-failed", "--seed", "3")
    assert "begun with other seed" in done.stderr
    assert {path.name for path in scores.shards(folder / "out")} == before
