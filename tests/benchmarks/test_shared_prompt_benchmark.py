"""The benchmark of shared prompts in its smallest form: that the ways do the same work. No times."""

import json
from pathlib import Path

import pytest
import shared_prompt
from shared_prompt import ANSWERS, PASSES, ROWS, SHARED

pytestmark = pytest.mark.engine

SMALLEST = ["--sizes", "60/30", "--n", "4", "--questions", "1", "--rounds", "1"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared_prompt")
    shared_prompt.main([*SMALLEST, "--out", str(folder / "found.json"), "--figure", str(folder / "figure.png")])
    return folder / "found.json"


def test_the_ways_agree_and_are_measured(out: Path) -> None:
    (cell,) = json.loads(out.read_text()).values()
    assert cell.keys() == {
        "prompt", "answers", "questions", "rounds", "left_out", "tokens", "agreement", "peak_bytes", "seconds"
    }  # fmt: skip
    assert cell["agreement"].keys() == {ROWS, ANSWERS}
    for errors in cell["agreement"].values():
        assert errors["log_probs"] < 1e-4 and errors["gradients"] < 1e-4
    assert cell["seconds"].keys() == cell["peak_bytes"].keys() == {ROWS, ANSWERS, SHARED}
    assert all(len(passes[which]) == 1 and passes[which][0] > 0 for passes in cell["seconds"].values() for which in PASSES)
    # Answers are up to a tenth longer or shorter than 30; three prompts fewer are in the packed sequence.
    assert 4 * 27 <= cell["tokens"]["shared"] - cell["prompt"] <= 4 * 33
    assert cell["tokens"]["rows"] >= cell["tokens"]["shared"] + 3 * cell["prompt"]
    assert cell["peak_bytes"][ROWS] > cell["peak_bytes"][SHARED] > 0
    assert out.with_name("figure.png").stat().st_size > 0


def test_finished_cells_are_kept(out: Path) -> None:
    before = out.read_bytes(), out.stat().st_mtime_ns
    shared_prompt.main([*SMALLEST, "--out", str(out)])
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before


def test_rows_whose_logits_do_not_fit_are_left_out_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "found.json"
    shared_prompt.main([*SMALLEST, "--max-gb", "0.01", "--out", str(out)])
    (cell,) = json.loads(out.read_text()).values()
    assert cell["seconds"].keys() == {ANSWERS, SHARED} and cell["agreement"].keys() == {ANSWERS}
    assert "--max-gb is 0.01" in cell["left_out"]
    assert f"60/30 n=4: without {ROWS}: {cell['left_out']}" in capsys.readouterr().out
