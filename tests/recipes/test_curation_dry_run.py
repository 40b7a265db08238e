"""What `curate_future_l1_50k.sh` would run, as its ``--dry-run`` prints it: commands that parse and fit together."""

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest

from future_l1_verl import cli

RECIPE = Path(__file__).parents[2] / "recipes/curate_future_l1_50k.sh"
FILES = ("--input", "a.parquet", "--videos", "clips", "--model", "M", "--out", "out")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(RECIPE), *arguments, "--dry-run"], capture_output=True, text=True, check=False)


def commands(*arguments: str) -> dict[str, argparse.Namespace]:
    done = run(*FILES, *arguments)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    commands = [line[3:] for line in lines if line[1:3] == ["-m", "data_prep.curation"]]
    return {command: cli.parser(f"curate {command}").parse_args(rest) for command, *rest in commands}


def test_each_command_reads_what_the_one_before_writes() -> None:
    judge = ("--judge-url", "http://judge", "--judge-model", "J", "--judge-cache", "/local/c.sqlite")
    benchmarks = ("--benchmark", "b.parquet", "c.parquet", "--benchmark-videos", "B", "C", "--video-id", r"^(.{11})_\d+$")
    found = commands("--input", "a.parquet", "b.parquet", *judge, *benchmarks)
    assert list(found) == ["read", "score", "select", "build"]
    read, score, select, build = found.values()
    assert [str(path) for path in read.input] == ["a.parquet", "b.parquet"]
    assert read.out == score.candidates == select.candidates
    assert score.out == select.scores
    assert select.out / "selected.parquet" == build.selected
    assert {str(args.videos) for args in found.values()} == {"clips"}
    assert (score.judge_url, score.judge_model, score.judge_cache) == ("http://judge", "J", "/local/c.sqlite")
    assert [str(path) for path in (*select.benchmark, *select.benchmark_videos)] == ["b.parquet", "c.parquet", "B", "C"]
    assert select.video_id == build.video_id == r"^(.{11})_\d+$"


def test_the_folder_that_machines_share_holds_no_cache_of_verdicts() -> None:
    assert commands("--judge-url", "http://judge", "--judge-model", "J")["score"].judge_cache is None


def test_what_was_selected_and_built_with_other_arguments_goes(tmp_path: Path) -> None:
    for name in ("candidates.parquet", "selected/report.json", "data/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = run(*FILES[:-1], str(tmp_path))
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert lines[1] == ["rm", "-rf", str(tmp_path / "selected"), str(tmp_path / "data")]
    assert [line[3] for line in lines if line[1] == "-m"] == ["score", "select", "build"]


def test_the_defaults_are_the_papers() -> None:
    found = commands()
    score, select = found["score"], found["select"]
    assert (score.rollouts, select.max_base, select.min_gain, select.top) == (8, 6, 2, 50_000)
    assert select.control


def test_an_estimate_scores_a_sample_in_a_folder_of_its_own() -> None:
    found = commands("--estimate", "2700000", "--replicas", "64", "--cpus", "512")
    assert list(found) == ["read", "score", "estimate"]
    read, score, estimate = found.values()
    assert read.limit == 512
    assert read.out == score.candidates != commands()["score"].candidates
    assert score.out == estimate.scores != commands()["score"].out
    assert (estimate.candidates, estimate.replicas, estimate.cpus, score.replicas) == (2_700_000, 64, 512, 64)


def test_what_follows_two_dashes_goes_to_score() -> None:
    done = subprocess.run(
        ["bash", str(RECIPE), *FILES, "--dry-run", "--", "--temperature", "0.5"], capture_output=True, text=True, check=False
    )
    (line,) = [line for line in done.stdout.splitlines() if " score " in line]
    assert cli.parser("curate score").parse_args(shlex.split(line)[4:]).temperature == 0.5


@pytest.mark.parametrize("missing", ["input", "videos", "model", "out"])
def test_what_is_needed_is_named(missing: str) -> None:
    place = FILES.index(f"--{missing}")
    done = run(*FILES[:place], *FILES[place + 2 :])
    assert done.returncode == 1
    assert f"--{missing} is needed" in done.stderr


@pytest.mark.parametrize(("given", "needed"), [("--benchmark", "--benchmark-videos"), ("--estimate", "--cpus")])
def test_what_goes_together_is_named_before_anything_is_run(given: str, needed: str) -> None:
    done = run(*FILES, given, "1")
    assert (done.returncode, f"{given} needs {needed}" in done.stderr) == (1, True)


def test_an_unknown_argument_is_refused() -> None:
    done = run(*FILES, "--repliccas", "3")
    assert (done.returncode, "unknown argument --repliccas" in done.stderr) == (1, True)
