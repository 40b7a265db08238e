"""What a run leaves in its folder: nothing of it is lost, and nothing that is not whole is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_records import record
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.runs import RunError

MISSING: dict[str, Any] = {"scores": None, "parsed": False, "error": "no verdict"}


def test_a_folder_is_begun_and_continued_with_the_same_settings(tmp_path: Path) -> None:
    settings = {"task": "rl", "decoding": {"seed": 1}, "numbers": (1, 2), "judge": None}
    for _ in range(2):
        runs.begin(tmp_path / "run", settings)
    assert runs.read(tmp_path / "run").settings == settings | {"numbers": [1, 2]}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"task": "rl", "limit": 3, "decoding": {"seed": 1}}, "limit"),
        ({"task": "synthetic", "limit": 2, "decoding": {"seed": 2}}, "decoding, task"),
        ({"task": "rl", "limit": 2}, "decoding"),
        ({"task": "rl", "limit": 2, "decoding": {"seed": 1}, "style": "direct"}, "style"),
    ],
)
def test_settings_that_differ_are_named_and_the_folder_stays(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    runs.begin(tmp_path, {"task": "rl", "limit": 2, "decoding": {"seed": 1}})
    runs.append(tmp_path, [record(0)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"{tmp_path}: was begun with other {named};"):
        runs.begin(tmp_path, settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), max_size=2), st.none() | st.text())
def test_an_answer_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, text: str, options: list[str], answer: str | None
) -> None:
    """Also if there are line ends of any kind in it."""
    folder = tmp_path_factory.mktemp("run")
    written = [record(0, text=text + "\u2028\n\x85\x1c", options=options, answer=answer, spans=[2, 4]), record(1, donor=0)]
    runs.append(folder, written)
    assert runs.records(folder) == written
    assert (folder / runs.ANSWERS).read_bytes().count(b"\n") == 2


def test_answers_come_by_row_and_the_last_line_of_a_row_counts(tmp_path: Path) -> None:
    runs.append(tmp_path, [record(2, **MISSING), record(0), record(1, **MISSING)])
    runs.append(tmp_path, [record(1, **MISSING)])
    runs.append(tmp_path, [record(2, scores={"accuracy": 0.0})])
    found = runs.records(tmp_path)
    assert [each.row for each in found] == [0, 1, 2]
    assert [each.scores for each in found] == [{"accuracy": 1.0}, None, {"accuracy": 0.0}]


def test_a_folder_without_answers_has_none(tmp_path: Path) -> None:
    assert runs.records(tmp_path) == []
    runs.begin(tmp_path, {})
    (tmp_path / runs.ANSWERS).write_text("")
    runs.begin(tmp_path, {})
    assert runs.read(tmp_path).records == []


@pytest.mark.parametrize("whole", [0, 2])
def test_a_line_that_was_cut_anywhere_is_no_answer_and_is_overwritten(whole: int, tmp_path: Path) -> None:
    runs.append(tmp_path, [record(row) for row in range(whole + 1)])
    path = tmp_path / runs.ANSWERS
    lines = path.read_bytes().splitlines(keepends=True)
    for left in range(len(lines[whole])):
        path.write_bytes(b"".join(lines[:whole]) + lines[whole][:left])
        assert [each.row for each in runs.records(tmp_path)] == list(range(whole))
        runs.begin(tmp_path, {})
        assert path.read_bytes() == b"".join(lines[:whole])
        runs.append(tmp_path, [record(9)])
        assert [each.row for each in runs.records(tmp_path)] == [*range(whole), 9]


def test_whole_lines_are_not_touched_when_a_run_goes_on(tmp_path: Path) -> None:
    runs.append(tmp_path, [record(0), record(1)])
    before = (tmp_path / runs.ANSWERS).read_bytes()
    runs.begin(tmp_path, {})
    assert (tmp_path / runs.ANSWERS).read_bytes() == before


@pytest.mark.parametrize("broken", ['{"row": 1', "[]", "7", '{"row": 1}', '{"row": 1, "vanished": 2}', ""])
def test_a_line_that_is_no_answer_is_named(broken: str, tmp_path: Path) -> None:
    runs.append(tmp_path, [record(0)])
    path = tmp_path / runs.ANSWERS
    path.write_text(path.read_text() + broken + "\n")
    runs.append(tmp_path, [record(2)])
    with pytest.raises(RunError, match=rf"{path}: line 2 is no answer \("):
        runs.records(tmp_path)


def finished(folder: Path, questions: int, *records: runs.Record) -> Path:
    runs.begin(folder, {"questions": questions})
    runs.append(folder, records)
    return folder


def test_a_run_that_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing: holds no settings\.json"):
        runs.read_finished(tmp_path / "nothing")
    short = finished(tmp_path / "short", 3, record(0), record(1))
    with pytest.raises(RunError, match=r"short: is no result: 2 of 3 questions are answered .*, 0 verdicts are missing"):
        runs.read_finished(short)
    missing = finished(tmp_path / "missing", 2, record(0), record(1, **MISSING))
    with pytest.raises(RunError, match=r"missing: is no result: 2 of 2 questions are answered .*, 1 verdicts are missing"):
        runs.read_finished(missing)
    assert [each.row for each in runs.read(missing).missing] == [1]
    runs.append(missing, [record(1)])
    assert runs.read_finished(missing).records == [record(0), record(1)]


def test_two_answers_to_one_question_are_not_two_questions(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="1 of 2 questions are answered"):
        runs.read_finished(finished(tmp_path, 2, record(0), record(0)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_latents_are_kept_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    """Every pattern of 16 bits, infinities and all kinds of NaN among them."""
    bits = torch.arange(-(2**15), 2**15).to(torch.int16).view(256, 256)
    latents = bits.view(dtype) if dtype != torch.float32 else bits.to(torch.int32).mul(65_537).view(dtype)
    runs.save_latents(tmp_path, 7, latents)
    found = runs.latents(tmp_path, 7)
    whole = torch.int32 if dtype == torch.float32 else torch.int16
    assert found.dtype == dtype and torch.equal(found.view(whole), latents.view(whole))


def test_latents_that_are_part_of_something_larger_are_kept_alone(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    for row, part in enumerate([table.T, table[1:], table[:, ::2], table[:0]]):
        runs.save_latents(tmp_path, row, part)
        assert torch.equal(runs.latents(tmp_path, row), part)
    assert sorted(path.name for path in (tmp_path / "latents").iterdir()) == [f"{row}.safetensors" for row in range(4)]


def test_latents_that_were_not_kept_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"latents/3\.safetensors: does not exist; latents are kept by .*--save-latents"):
        runs.latents(tmp_path, 3)


def test_a_line_of_a_run_is_plain_json(tmp_path: Path) -> None:
    runs.append(tmp_path, [replace(record(0), text="é")])
    line = json.loads((tmp_path / runs.ANSWERS).read_text())
    assert (line["row"], line["text"], line["scores"]) == (0, "é", {"accuracy": 1.0})
