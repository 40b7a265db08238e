"""The progress of long work where it is read line by line."""

import pytest
from tqdm import tqdm

from future_l1_verl import progress
from future_l1_verl.progress import Progress


@pytest.mark.parametrize("leave", [True, False])
def test_a_pipe_gets_lines(leave: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0)
    assert list(Progress("abc", desc="letters", total=3, leave=leave)) == ["a", "b", "c"]
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said and said.endswith("\n")
    assert all(line.startswith("letters: ") for line in lines)
    assert [done in said for done in ("| 1/3 ", "| 2/3 ", "| 3/3 ")] == [True] * 3

    list(tqdm("abc", desc="letters", mininterval=0))
    assert "\r" in capsys.readouterr().err  # which a reader of lines waits behind


def test_one_within_another_has_lines_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0)
    for _ in Progress("ab", desc="outer", leave=False):
        list(Progress("cde", desc="inner", leave=False))
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("outer: ", "inner: ")) for line in lines)
    assert sum("inner: 100%" in line for line in lines) >= 2 and any("outer: 100%" in line for line in lines)


def test_what_is_done_at_once_says_nothing(capsys: pytest.CaptureFixture) -> None:
    list(Progress(range(100_000), desc="numbers"))
    assert capsys.readouterr().err == ""
