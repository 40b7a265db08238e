"""Scoring on Ray Data with a backend whose answers are known: what is asked, kept, continued and refused."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from chat_server import Reply, says, serving
from stub_backend import StubSettings, right

from data_prep.curation import candidates, pipeline, scores
from data_prep.curation.candidates import Candidate
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from data_prep.curation.questions import Prompts, seeds
from data_prep.toy.synthetic.rendering import FPS
from future_l1_verl.collector import RAY_HOOK
from future_l1_verl.data.video import write_video
from future_l1_verl.rewards.judge.settings import JudgeSettings

pytestmark = pytest.mark.engine

TRUTH = "the left wall"
OBSERVED = (1, 2)
AWAY = 10  # seconds


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    here = str(Path(__file__).parent)
    ray.init("local", num_cpus=2, include_dashboard=False, runtime_env=RAY_HOOK | {"env_vars": {"PYTHONPATH": here}})
    yield
    ray.shutdown()


def candidate(number: int, video: str = "clip.mp4") -> Candidate:
    return {
        "id": f"q{number}",
        "source": f"made: row {number}",
        "video": video,
        "question": "<image><image>What does it hit?",
        "answer": TRUTH,
        "options": [],
        "image": list(OBSERVED),
        "reasoning_image": [5, 7],
        "response": "",
        "category": "",
    }


def job_of(folder: Path, rows: list[Candidate]) -> Job:
    folder.mkdir(exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", frames, FPS)
    candidates.write(folder / "candidates.parquet", rows)
    return Job(folder / "candidates.parquet", folder, folder / "out", Prompts.read(), rollouts=4, shard_size=2)


def run(job: Job, backend: StubSettings, judge: JudgeSettings | None = None, patience: Patience | None = None) -> list[int]:
    return list(pipeline.score(job, backend, pipeline.Replicas(), judge, patience or Patience()))


def asked(log: Path) -> Counter[int]:
    return Counter(map(int, log.read_text().split()))


def expected(job: Job, number: int) -> dict[str, int]:
    """The counts that follow from the stub's rule."""
    of = {condition: seeds(job.seed, f"q{number}", condition, job.rollouts) for condition in scores.CONDITIONS}
    return {f"{condition}_correct": sum(right(seed, condition == "hint") for seed in of[condition]) for condition in of}


def counts(job: Job) -> dict[str, dict[str, int]]:
    rows = scores.read(job.folder).to_pylist()
    return {row["id"]: {name: row[name] for name in ("base_correct", "hint_correct")} for row in rows}


def test_each_candidate_is_asked_under_both_conditions_once_and_counted(tmp_path: Path) -> None:
    job = job_of(tmp_path, [candidate(number) for number in range(5)])
    log = tmp_path / "asked"
    assert sorted(run(job, StubSettings(TRUTH, log))) == [0, 1, 2]
    assert counts(job) == {f"q{number}": expected(job, number) for number in range(5)}
    wanted = [seed for n in range(5) for condition in scores.CONDITIONS for seed in seeds(job.seed, f"q{n}", condition, 4)]
    assert asked(log) == Counter(wanted)
    rows = scores.read(job.folder).to_pylist()
    shown = {condition: {rollout["text"][:16] for row in rows for rollout in row[condition]} for condition in scores.CONDITIONS}
    assert shown == {"base": {"<reason>2 frames"}, "hint": {"<reason>4 frames"}}
    assert not list((job.folder / "rollouts").glob("*.parquet"))
    # Started again there is nothing to do.
    assert run(job, StubSettings(TRUTH, log)) == []
    assert asked(log) == Counter(wanted)


def test_what_fails_is_recorded_never_counted_and_asked_again_on_request(tmp_path: Path) -> None:
    job = job_of(tmp_path, [candidate(0), candidate(1), candidate(2), candidate(3, "missing.mp4")])
    broken, log = tmp_path / "broken", tmp_path / "asked"
    broken.touch()
    failing = frozenset(seeds(job.seed, "q0", "hint", 4)[1:3])
    backend = StubSettings(TRUTH, log, failing=failing, broken=broken)
    run(job, backend)
    found = counts(job)
    assert found["q0"] == {"base_correct": expected(job, 0)["base_correct"], "hint_correct": None}
    assert found["q1"] == expected(job, 1)
    assert found["q3"] == {"base_correct": None, "hint_correct": None}
    summary = pipeline.summary(job.folder)
    assert (summary["candidates"], summary["incomplete"]) == (4, 2)
    assert summary["failures"] == {"video or image cannot be shown": 8, "broken": 2}

    broken.unlink()
    candidates_before = asked(log)
    assert pipeline.reopen_failed(job) == 2
    run(job, backend)
    assert counts(job)["q0"] == expected(job, 0)
    assert asked(log) - candidates_before == Counter(failing)


@pytest.mark.parametrize("change", [{"seed": 1}, {"rollouts": 2}, {"shard_size": 3}, {"max_pixels": 100}])
def test_a_folder_is_not_continued_with_other_settings(change: dict[str, int], tmp_path: Path) -> None:
    job = job_of(tmp_path, [candidate(0)])
    backend = StubSettings(TRUTH, tmp_path / "asked")
    pipeline.begin(job, backend, None)
    pipeline.begin(job, backend, None)
    with pytest.raises(ValueError, match=f"begun with other {next(iter(change))};"):
        pipeline.begin(replace(job, **change), backend, None)


def test_other_candidates_are_other_settings(tmp_path: Path) -> None:
    job = job_of(tmp_path, [candidate(0)])
    backend = StubSettings(TRUTH, tmp_path / "asked")
    pipeline.begin(job, backend, None)
    candidates.write(job.candidates, [candidate(1)])
    with pytest.raises(ValueError, match="candidates"):
        pipeline.begin(job, backend, None)


def test_a_judge_that_is_away_for_a_while_marks_nothing_wrong(tmp_path: Path) -> None:
    """It goes away at its tenth request, for much longer than all attempts at a verdict take, in the middle of a shard."""
    job = job_of(tmp_path, [candidate(number) for number in range(6)])
    returned: list[threading.Timer] = []

    def script(prompt: str, nth: int) -> Reply:
        if len(judge_server.requests) == 10:
            judge_server.away = True
            returned.append(threading.Timer(AWAY, setattr, (judge_server, "away", False)))
            returned[0].start()
        return says("yes" if TRUTH in prompt.split("Answer to judge:")[1] else "no")

    with serving() as judge_server:
        judge_server.script = script
        judge = JudgeSettings(judge_server.url, "judge", mode="judge_only", attempts=2, backoff=0.01, concurrency=4)
        run(job, StubSettings(TRUTH, tmp_path / "asked", freely=True), judge, Patience(rounds=2, outage=120, pause=0.2))
    assert returned
    assert counts(job) == {f"q{number}": expected(job, number) for number in range(6)}
    assert pipeline.summary(job.folder)["failures"] == {}


def test_a_judge_that_stays_away_ends_the_run_and_loses_no_text(tmp_path: Path) -> None:
    job = job_of(tmp_path, [candidate(number) for number in range(4)])
    backend = StubSettings(TRUTH, tmp_path / "asked", freely=True)
    with serving() as judge_server:
        judge = JudgeSettings(judge_server.url, "judge", mode="judge_only", attempts=1)
        judge_server.away = True
        with pytest.raises(ray.exceptions.RayTaskError, match="no answer for 1 s; start again when it is back"):
            run(job, backend, judge, Patience(outage=1, pause=0.1))
        before = asked(tmp_path / "asked")
        assert before
        judge_server.away = False
        judge_server.script = lambda prompt, nth: says("yes" if TRUTH in prompt.split("Answer to judge:")[1] else "no")
        run(job, backend, judge)
    assert counts(job) == {f"q{number}": expected(job, number) for number in range(4)}
    kept = [seed for n in (0, 1) for condition in scores.CONDITIONS for seed in seeds(job.seed, f"q{n}", condition, 4)]
    assert all(asked(tmp_path / "asked")[seed] == 1 for seed in kept)
