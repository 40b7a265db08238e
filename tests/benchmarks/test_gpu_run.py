"""The runner of the GPU's phases, on scripts written here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gpu import run
from gpu.record import Record
from gpu.run import PHASES, Phase, run_all

SCRIPTS = {
    "bad": "print('first line'); raise SystemExit('the reason')",
    # Starts a process of its own, which must not outlive it.
    "slow": """
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path(out).with_name("child").write_text(str(child.pid))
        result({"first": 1}, complete=False)
        child.wait()
    """,
    "good": "pathlib.Path(out).with_name('runs').open('a').write('x'); result({'cell': 2}, complete=True)",
}
HEAD = """
import json, pathlib, subprocess, sys
out = sys.argv[sys.argv.index("--out") + 1]
def result(cells, complete):
    pathlib.Path(out).write_text(json.dumps({"complete": complete, "cells": cells}))
"""


@pytest.fixture
def phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Phase]:
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name, script in SCRIPTS.items():
        body = "\n".join(line.strip() for line in script.strip().splitlines())
        (folder / f"{name}.py").write_text(HEAD + body)
    monkeypatch.setattr(run, "machine", lambda out, cpu: {"device": "none"})
    return [Phase(name, 2 if name == "slow" else 60, folder) for name in SCRIPTS]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_others_go_on_when_one_fails_or_takes_too_long(phases: list[Phase], tmp_path: Path) -> None:
    outcomes = {outcome.name: outcome for outcome in run_all(phases, tmp_path, cpu=False)}
    assert [outcomes[name].state for name in SCRIPTS] == ["failed", "failed", "done"]
    assert outcomes["bad"].reason == "the reason"
    assert outcomes["slow"].reason == "longer than 2 s"
    assert not alive(int((tmp_path / "child").read_text()))
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["machine"] == {"device": "none"}
    assert {name: phase["state"] for name, phase in found["phases"].items()} == dict(bad="failed", slow="failed", good="done")
    assert found["phases"]["slow"]["result"]["cells"] == {"first": 1}  # what it had measured before
    assert found["phases"]["good"]["result"]["cells"] == {"cell": 2}


def test_what_is_there_is_not_run_again(phases: list[Phase], tmp_path: Path) -> None:
    some = [phase for phase in phases if phase.name != "slow"]
    run_all(some, tmp_path, cpu=False)
    again = run_all(some, tmp_path, cpu=False)
    assert [outcome.state for outcome in again] == ["failed", "kept"]
    assert (tmp_path / "runs").read_text() == "x"
    assert json.loads((tmp_path / "results.json").read_text())["phases"]["good"]["state"] == "done"


def test_the_status_says_whether_a_phase_failed(
    phases: list[Phase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(run, "PHASES", phases)
    for names, status in ((["good"], 0), (["good", "bad"], 1)):
        with pytest.raises(SystemExit) as ended:
            run.main([*names, "--out", str(tmp_path)])
        assert ended.value.code == status
    assert "failed: bad: the reason" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run.main(["bda", "--out", str(tmp_path)])
    assert ended.value.code == 2 and "there is no phase bda; there are bad, slow, good" in capsys.readouterr().err


def test_limits_are_for_fifteen_minutes() -> None:
    seconds = [phase.seconds for phase in PHASES]
    assert sum(seconds) <= 13 * 60
    assert all((phase.folder / f"{phase.name}.py").is_file() for phase in PHASES)


def test_a_cell_that_fails_does_not_end_the_phase_and_is_measured_again(tmp_path: Path) -> None:
    def fails() -> dict[str, int]:
        raise ValueError("too small")

    record = Record(tmp_path / "phase.json")
    record.cell("a", lambda: {"value": 1})
    record.cell("b", fails)
    record.cell("c", lambda: {"value": 3})
    found = json.loads(record.path.read_text())
    assert found["cells"] == {"a": {"value": 1}, "c": {"value": 3}} and found["failed"] == {"b": "ValueError: too small"}
    assert not found["complete"]
    again = Record(tmp_path / "phase.json")
    again.cell("a", fails)  # is there
    again.cell("b", lambda: {"value": 2})
    assert again.cells["b"] == {"value": 2} and not again.failed
