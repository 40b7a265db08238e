"""The pages of results say what stands in the files that they are made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is imported for it is forgotten again: other folders of benchmarks have modules of the same names."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks/faults"), *sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_row_adds_up_its_runs(benchmarks: None, tmp_path: Path) -> None:
    outcome = import_module("outcome")
    figures = [(8, 1, 0, 2.4, "went on"), (6, 0, 2, 11.6, "ended"), (6, 0, 0, 1, "ended")]
    runs = [outcome.Outcome(*each) for each in figures]
    for run in runs:
        outcome.append("power_cut", run, "abc", tmp_path)
    assert outcome.read("power_cut", tmp_path) == runs and outcome.read("another", tmp_path) == []
    row = outcome.row("the power goes", "answers", runs)
    assert row == "| the power goes | 3 | 20 answers | 1 | 2 | 12 | ended (2), went on (1) |"


def test_the_page_of_faults(benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = import_module("table")
    monkeypatch.setattr(table, "PAGE", tmp_path / "faults.md")
    table.main()
    page = table.PAGE.read_text()
    assert page == (ROOT / "docs/faults.md").read_text()
    assert page.count("\n| ") - 1 == len(list((ROOT / "benchmarks/faults/results").glob("*.jsonl")))


def test_the_page_of_half_precision(benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bf16 = import_module("bf16")
    monkeypatch.setattr(bf16, "PAGE", tmp_path / "precision.md")
    bf16.write_page(bf16.Record(ROOT / "benchmarks/bf16.json"))
    ours, theirs = (path.read_text().split("\n\n", 2)[2] for path in (bf16.PAGE, ROOT / "docs/precision.md"))
    assert ours == theirs, "but for the line that names the machine"
    cells = json.loads((ROOT / "benchmarks/bf16.json").read_text())["cells"]
    moved = cells["densities, 1k, 4 layers, bf16"]
    assert moved["vmf"]["max"] < 1e-5 < moved["gaussian"]["mean"]
