"""What is asked of a task: its splits and ids, and rows that are none of its questions. tests/data has what rows are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from future_l1_verl.data.rows import BadRow, Clip, Row, RowError
from future_l1_verl.evaluation.tasks import TASKS, read

Fields = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file where the clip should be: reading questions does not decode it."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/1.mp4").write_bytes(b"clip")
    return tmp_path


def ask(name: str, folder: Path, *rows: Fields, **how: Any) -> tuple[list[Row], list[BadRow]]:
    (folder / "rows.json").write_text(json.dumps(rows))
    return read(TASKS[name], [folder / "rows.json"], how.pop("videos", None), **how)


def futurebench(**changes: Any) -> Fields:
    qa = {"Question": "What happens?", "Options": ["It falls", "It stops"], "Answer": "B"}
    return {"id": "q1", "question_type": "hop1", "video_path": "clips/1.mp4", "qa": qa} | changes


def twiff(**changes: Any) -> Fields:
    return {
        "id": "t1", "video": "clips/1.mp4", "question": "What falls?", "question_images_index": [1, 2, 3],
        "answer": "It tips.<rimage>Then it is down.<ans>The cup.</ans>", "reasoning_images_index": [6],
        "meta_data": {"classification": "Everyday"},
    } | changes  # fmt: skip


def rl(**changes: Any) -> Fields:
    return {
        "id": "r1", "problem": "<image><image>Where?\nA. left\nB. right", "answer": "right", "options": ["left", "right"],
        "video": "clips/1.mp4", "image": [1, 4], "reasoning_image": [6], "split": "2-hop", "data_source": "set/2-hop",
    } | changes  # fmt: skip


ROWS: dict[str, Callable[..., Fields]] = {"futurebench": futurebench, "twiffbench": twiff, "synthetic": rl, "rl": rl}


@pytest.mark.parametrize(("kind", "split"), [("hop1", "1-hop"), ("hop2", "2-hop"), ("hop3", "3-hop"), ("hop5", "interp")])
def test_hops_are_splits_of_questions_about_whole_clips(kind: str, split: str, folder: Path) -> None:
    ((row,), bad) = ask("futurebench", folder, futurebench(question_type=kind))
    assert (row.category, row.id, row.observed, bad) == (split, "q1", (Clip(str(folder / "clips/1.mp4")),), [])


def test_twiff_bench_is_split_by_category(folder: Path) -> None:
    (one, other), _ = ask("twiffbench", folder, twiff(), twiff(meta_data=None))
    assert (one.category, one.observed, one.future, one.truth) == ("everyday", (1, 2, 3), (6,), "The cup.")
    assert other.category == "all questions"


@pytest.mark.parametrize("split", [{}, {"split": None}, {"split": ""}])
def test_a_row_without_a_split_is_counted_with_its_source(split: Fields, folder: Path) -> None:
    fields = {key: value for key, value in rl().items() if key not in ("split", "options", "reasoning_image", "id")} | split
    ((row,), _) = ask("rl", folder, fields)
    assert (row.category, row.future, row.id) == ("set/2-hop", (), "0")


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("futurebench", futurebench(question_type="hop4"), "question_type is not one of hop1, hop2, hop3, hop5: 'hop4'"),
        ("futurebench", futurebench(question_type=None), "question_type is not one of hop1, hop2, hop3, hop5: ''"),
        ("futurebench", futurebench(qa={"Question": "What?", "Answer": "It falls"}), "no options: a question of FutureBench"),
        ("futurebench", twiff(), "question_type is not one of"),
        ("rl", {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}, "answer is missing"),
        ("rl", rl(video="clips/2.mp4"), "video or image is missing: "),
    ],
)
def test_a_row_that_is_no_question_of_the_task_is_left_out_with_its_reason(
    name: str, row: Fields, says: str, folder: Path
) -> None:
    (found, (bad,)) = ask(name, folder, ROWS[name](), row)
    assert [row.number for row in found] == [0]
    assert bad.source == f"{folder}/rows.json: row 1" and bad.reason.startswith(says)


def test_data_without_any_question_are_refused_naming_twenty_of_many(folder: Path) -> None:
    with pytest.raises(RowError) as refusal:
        ask("futurebench", folder, *[futurebench(question_type="hop9")] * 23)
    lines = str(refusal.value).split("\n")
    assert len(lines) == 21 and "row 19: question_type is" in lines[19] and lines[20] == "... and 3 more"


@pytest.mark.parametrize("name", TASKS)
def test_a_question_is_called_the_same_wherever_its_clip_is(name: str, folder: Path) -> None:
    fields = {key: value for key, value in ROWS[name]().items() if key != "id"}
    (folder / "elsewhere/clips").mkdir(parents=True)
    (folder / "elsewhere/clips/1.mp4").write_bytes(b"clip")
    ((here,), _), ((there,), _) = ask(name, folder, fields), ask(name, folder, fields, videos=str(folder / "elsewhere"))
    assert here.id == there.id == "0" and here.clip != there.clip


def test_a_row_whose_id_is_empty_has_its_number(folder: Path) -> None:
    found, _ = ask("futurebench", folder, futurebench(id=None), futurebench(id=""), futurebench(id=0))
    assert [row.id for row in found] == ["0", "1", "0"]


def test_only_the_first_rows_are_read_if_so_wished(folder: Path) -> None:
    rows = [futurebench(id=str(number)) for number in range(5)] + [futurebench(question_type="hop9")]
    assert [row.id for row in ask("futurebench", folder, *rows, limit=3)[0]] == ["0", "1", "2"]
    assert len(ask("futurebench", folder, *rows, limit=9)[1]) == 1


def test_tasks_have_the_papers_budgets_and_scores() -> None:
    assert {name: (task.max_tokens, task.marks) for name, task in TASKS.items() if name != "synthetic"} == {
        "futurebench": (2048, False), "twiffbench": (4096, True), "rl": (2048, False),
    }  # fmt: skip
