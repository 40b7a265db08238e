"""What is asked: rows of every form as questions, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from future_l1_verl.data.rows import RowError
from future_l1_verl.evaluation.tasks import TASKS, Question, read

Row = dict[str, Any]

OPTIONS = ["It falls", "It rolls left", "It stops"]
INLINED = "What happens?\nA. It falls\nB. It rolls left\nC. It stops"


def save_json(rows: list[Row], folder: Path) -> Path:
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / "rows.json"


def save_lines(rows: list[Row], folder: Path) -> Path:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    return folder / "rows.jsonl"


def save_parquet(rows: list[Row], folder: Path) -> Path:
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
    return folder / "rows.parquet"


def save_dataset(rows: list[Row], folder: Path) -> Path:
    Dataset.from_list(rows).save_to_disk(folder / "rows")
    return folder / "rows"


SAVERS = [save_json, save_lines, save_parquet, save_dataset]


def put(folder: Path, *names: str) -> None:
    """Files where clips should be: reading questions does not decode them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def ask(name: str, tmp_path: Path, *rows: Row, **how: Any) -> list[Question]:
    return read(TASKS[name], save_json(list(rows), tmp_path), how.pop("videos", None), **how)


def refused(name: str, tmp_path: Path, *rows: Row, **how: Any) -> list[str]:
    """The lines of the refusal, without the name of the file."""
    with pytest.raises(RowError) as refusal:
        ask(name, tmp_path, *rows, **how)
    return str(refusal.value).replace(f"{tmp_path}/rows.json: ", "").split("\n")


def futurebench(**changes: Any) -> Row:
    qa = {"Question": "What happens?", "Options": OPTIONS, "Answer": "B"}
    return {"id": "q1", "question_type": "hop1", "video_path": "clips/1.mp4", "qa": qa} | changes


def qa(**changes: Any) -> Row:
    return futurebench(qa=futurebench()["qa"] | changes)


def twiff(**changes: Any) -> Row:
    return {
        "id": "t1", "video": "clips/1.mp4", "question": "What falls?", "question_images_index": [1, 2, 3],
        "answer": "It tips.<image>Then it is down.<answer>The cup.</answer>", "reasoning_images_index": [6],
        "meta_data": {"classification": "Everyday"},
    } | changes  # fmt: skip


def conversations(**changes: Any) -> Row:
    talk = [
        {"from": "human", "value": "<image>First.<image>Then. What falls?"},
        {"from": "gpt", "value": "THOUGHT 1: It tips.<image>THOUGHT 2: It is down.<answer>The cup.</answer>"},
    ]
    return {
        "id": "c1", "video": "clips/1.mp4", "conversations": talk, "image": [2, 4], "reasoning_image": [8],
        "answer": "The cup.", "category": "Everyday",
    } | changes  # fmt: skip


def rl(**changes: Any) -> Row:
    return {
        "id": "r1", "problem": "<image><image>Where?\nA. left\nB. right", "answer": "right", "options": ["left", "right"],
        "video": "clips/1.mp4", "image": [1, 4], "reasoning_image": [6], "split": "2-hop", "data_source": "set/2-hop",
    } | changes  # fmt: skip


ROWS: dict[str, Callable[..., Row]] = {"futurebench": futurebench, "twiffbench": twiff, "synthetic": rl, "rl": rl}


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_every_kind_of_file(save: Callable[[list[Row], Path], Path], name: str, tmp_path: Path) -> None:
    rows = [ROWS[name](id=f"é{number}\u2028{number}") for number in range(3)]
    data = save(rows, tmp_path)
    # A folder of save_to_disk has its clips inside.
    home = data if data.is_dir() else tmp_path
    put(home, "clips/1.mp4")
    found = read(TASKS[name], data, None)
    assert [(question.row, question.id) for question in found] == [(number, row["id"]) for number, row in enumerate(rows)]
    assert [question.source for question in found] == [f"{data}: row {number}" for number in range(3)]
    assert {question.video for question in found} == {str(home / "clips/1.mp4")}
    (tmp_path / "json").mkdir()
    put(tmp_path / "json", "clips/1.mp4")
    other = ask(name, tmp_path / "json", *rows)
    for question, same in zip(found, other, strict=True):
        assert (question.split, question.text, question.truth) == (same.split, same.text, same.truth)
        assert (question.options, question.image, question.future) == (same.options, same.image, same.future)


def test_a_dataset_dict_is_refused_with_the_names_of_its_sets(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    sets = {name: Dataset.from_list([futurebench(id=name)]) for name in ("test", "validation")}
    DatasetDict(sets).save_to_disk(tmp_path / "both")
    with pytest.raises(RowError, match=r"both: holds several sets; name one: .*both/test, .*both/validation"):
        read(TASKS["futurebench"], tmp_path / "both", None)
    (question,) = read(TASKS["futurebench"], tmp_path / "both/validation", tmp_path)
    assert question.id == "validation"


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda folder: folder / "rows.json", r"rows\.json: no such file"),
        (lambda folder: folder, r"is no folder of datasets\.save_to_disk"),
        (lambda folder: save_json([], folder), r"rows\.json: holds no rows"),
        (lambda folder: save_json({"data": [futurebench()]}, folder), r"rows\.json: is no list of rows: \{'data'"),
        (lambda folder: save_json([futurebench(), "row"], folder), r"rows\.json: row 1 is no object with fields: 'row'"),
        (lambda folder: save_lines([futurebench()], folder).rename(folder / "rows.csv"), r"rows\.csv: \.csv suffix"),
    ],
)
def test_data_that_are_none_are_refused_by_name(write: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=says):
        read(TASKS["futurebench"], write(tmp_path), None)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = save_lines([futurebench()] * 2, tmp_path)
    path.write_text(path.read_text() + '\n{"id": 3, \n')
    with pytest.raises(RowError, match=r"rows\.jsonl: line 4 cannot be read \("):
        read(TASKS["futurebench"], path, None)
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(RowError, match=r"rows\.jsonl: cannot be read \(.*utf-8"):
        read(TASKS["futurebench"], path, None)


def test_a_file_that_is_a_link_keeps_its_name(tmp_path: Path) -> None:
    """The cache of a hub holds files by their digests, and links to them by name."""
    put(tmp_path / "named", "clips/1.mp4")
    save_json([futurebench()], tmp_path).rename(tmp_path / "e3b0c442")
    (tmp_path / "named/rows.json").symlink_to(tmp_path / "e3b0c442")
    (question,) = read(TASKS["futurebench"], tmp_path / "named/rows.json", None)
    assert question.video == str(tmp_path / "named/clips/1.mp4")


# FutureBench


@pytest.mark.parametrize(("kind", "split"), [("hop1", "1-hop"), ("hop2", "2-hop"), ("hop3", "3-hop"), ("hop5", "interp")])
def test_hops_are_splits(kind: str, split: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("futurebench", tmp_path, futurebench(question_type=kind))
    assert question == Question(
        0, f"{tmp_path}/rows.json: row 0", "q1", split, INLINED, "B", OPTIONS, str(tmp_path / "clips/1.mp4"), None, []
    )


@pytest.mark.parametrize(
    ("row", "truth"),
    [
        (qa(Options=dict(zip("ABC", OPTIONS, strict=True))), "B"),
        (qa(Options=dict(zip("ABC", OPTIONS, strict=True)) | {"D": None}), "B"),
        (qa(Options=[f"{letter}. {option}" for letter, option in zip("ABC", OPTIONS, strict=True)]), "B"),
        (qa(Answer="It rolls left"), "It rolls left"),
        (qa(Answer="B. It rolls left"), "B. It rolls left"),
        (futurebench(qa=json.dumps(futurebench()["qa"])), "B"),
        (futurebench(qa={"Question": INLINED, "Answer": "B"}), "B"),
        (futurebench(qa={"Question": INLINED, "Options": None, "Answer": "B"}), "B"),
        (futurebench(qa={"Question": INLINED, "Options": OPTIONS, "Answer": "B"}), "B"),
        (futurebench(qa=None) | {"Question": "What happens?", "Options": OPTIONS, "Answer": "B"}, "B"),
    ],
)
def test_options_are_shown_once_and_read_wherever_they_stand(row: Row, truth: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("futurebench", tmp_path, row)
    assert (question.text, question.options, question.truth) == (INLINED, OPTIONS, truth)


def test_options_inlined_in_a_line_stay_as_they_are(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    said = "What happens? (A) It falls (B) It rolls left (C) It stops"
    (question,) = ask("futurebench", tmp_path, futurebench(qa={"Question": said, "Answer": "C"}))
    assert (question.text, question.options) == (said, OPTIONS)


words = st.text("abcdefg ", min_size=2, max_size=12).map(str.strip).filter(lambda text: len(text) > 1)


@settings(deadline=None)
@given(st.lists(words, min_size=2, max_size=10, unique_by=lambda text: text), st.randoms(), st.sampled_from(["list", "dict"]))
def test_the_right_option_stays_the_right_one(
    tmp_path_factory: pytest.TempPathFactory, options: list[str], draw: random.Random, form: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "property"
    put(folder, "clips/1.mp4")
    right = draw.randrange(len(options))
    given_as = options if form == "list" else dict(zip("ABCDEFGHIJ", options, strict=False))
    try:
        (question,) = ask("futurebench", folder, qa(Options=given_as, Answer="ABCDEFGHIJ"[right]))
    except RowError as error:
        assert "different" in str(error) or "letters" in str(error)  # "a dog" and "dog" are one option
        return
    assert question.options["ABCDEFGHIJ".index(question.truth)] == options[right]
    shown = question.text.split("\n")
    assert shown[0] == "What happens?" and [line[3:] for line in shown[1:]] == question.options


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (futurebench(question_type="hop4"), "question_type is one of hop1, hop2, hop3, hop5, not 'hop4'"),
        (futurebench(question_type=["hop1"]), "question_type is no text: ['hop1']"),
        (futurebench(video_path=7), "video_path is no text: 7"),
        (futurebench(qa="{"), "qa is no JSON: "),
        (futurebench(qa=["Question"]), "qa is no object: ['Question']"),
        (qa(Answer="D"), "qa: the answer 'D' is not one of the options ['It falls', 'It rolls left', 'It stops']"),
        (qa(Answer="It flies"), "qa: the answer 'It flies' is not one of the options"),
        (qa(Answer="A or B"), "qa: the answer 'A or B' is not one of the options"),
        (qa(Answer=None), "answer or Answer is missing"),
        (qa(Answer=2), "Answer is no text: 2"),
        (qa(Question=" "), "Question is empty"),
        (qa(Options=["It falls"], Answer="A"), "options are not 2 to 10 different ones"),
        (qa(Options=["It falls", "it falls."]), "options are not 2 to 10 different ones"),
        (qa(Options={"B": "It falls", "C": "It stops"}), "options do not go by letters from A on: ['B', 'C']"),
        (qa(Options=None), "no options: the answer is 'B', but neither a field nor the question has options"),
        (qa(Options=None, Answer="It falls"), "qa: the answer 'It falls' is not one of the options []"),
        (qa(Question="<image>What happens?"), "qa: frames are shown before the question, which has an <image> of its own"),
        (qa(Options=["<image>", "It stops"]), "qa: frames are shown before the question, which has an <image> of its own"),
    ],
)
def test_a_row_that_is_no_question_of_futurebench_is_refused(row: Row, says: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (line,) = refused("futurebench", tmp_path, futurebench(), row)
    assert line.startswith(f"row 1: {says}")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("futurebench", "question_type"),
        ("futurebench", "video_path"),
        ("twiffbench", "video"),
        ("rl", "problem"),
        ("rl", "image"),
    ],
)
def test_rows_that_lack_a_field_are_all_named(name: str, field: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    whole = ROWS[name]()
    without = {key: value for key, value in whole.items() if key != field}
    lines = refused(name, tmp_path, whole, without, whole, whole | {field: None})
    assert [line.split(";")[0] for line in lines] == [f"row 1 lacks {field}", f"row 3 lacks {field}"]


def test_all_bad_rows_are_named_and_twenty_of_many(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    bad = [futurebench(question_type="hop9"), qa(Answer="Z"), futurebench(video_path="clips/2.mp4")]
    lines = refused("futurebench", tmp_path, futurebench(), *bad)
    assert [line[:22] for line in lines] == ["row 1: question_type i", "row 2: qa: the answer ", "row 3: video is missin"]
    lines = refused("futurebench", tmp_path, *[bad[0]] * 23)
    assert len(lines) == 21 and lines[19].startswith("row 19: ") and lines[20] == "... and 3 more"


# TwiFF-Bench


def test_twiff_rows_show_pool_frames_and_name_future_ones(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("twiffbench", tmp_path, twiff())
    assert (question.id, question.split, question.truth, question.options) == ("t1", "everyday", "The cup.", [])
    assert (question.text, question.image, question.future) == ("<image><image><image>What falls?", [1, 2, 3], [6])


def test_rows_of_conversations_keep_their_placeholders_in_place(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("twiffbench", tmp_path, conversations())
    assert (question.id, question.split, question.truth) == ("c1", "everyday", "The cup.")
    assert (question.text, question.image, question.future) == ("<image>First.<image>Then. What falls?", [2, 4], [8])


def test_what_follows_the_last_frame_is_the_answer_of_a_whole_reasoning(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("twiffbench", tmp_path, twiff(answer="It tips.<image>The cup.", meta_data=None))
    assert (question.truth, question.split) == ("The cup.", "all questions")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (twiff(question="<image>What falls?"), "placeholders do not fit: 1 <image> in the question, 3 observed frames"),
        (twiff(reasoning_images_index=[6, 7]), "placeholders do not fit: 1 <image> in the response, 2 future frames"),
        (twiff(question_images_index=[0, 1]), "question_images_index goes outside 1..8: [0, 1]"),
        (twiff(question_images_index=[]), "no observed frame"),
        (twiff(question_images_index="1"), "question_images_index is no list of frame numbers: '1'"),
        (twiff(answer="It tips.<image>"), "answer is empty"),
        (twiff(video=["clips/1.mp4"]), "video is no text"),
        (conversations(image=[1, 2, 3]), "placeholders do not fit: 2 <image> in the question, 3 observed frames"),
        (conversations(conversations=[]), "conversations are not a text of human and one of gpt"),
        ({"video": "clips/1.mp4", "caption": "A cup."}, "no known form: "),
    ],
)
def test_a_row_that_is_no_question_of_twiffbench_is_refused(row: Row, says: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (line,) = refused("twiffbench", tmp_path, twiff(), row)
    assert line.startswith(f"row 1: {says}")


# Stage 2's form


def test_a_row_of_stage_2_is_asked_to_the_letter(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("rl", tmp_path, rl(problem=" <image><image>Where?\n"))
    assert question == Question(
        0, f"{tmp_path}/rows.json: row 0", "r1", "2-hop", " <image><image>Where?\n", "right", ["left", "right"],
        str(tmp_path / "clips/1.mp4"), [1, 4], [6],
    )  # fmt: skip


@pytest.mark.parametrize("split", [{}, {"split": None}, {"split": ""}])
def test_a_row_without_a_split_is_counted_with_its_source(split: Row, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    row = {key: value for key, value in rl().items() if key not in ("split", "options", "reasoning_image", "id")} | split
    (question,) = ask("rl", tmp_path, row)
    assert (question.split, question.options, question.future, question.id) == ("set/2-hop", [], [], "0")


def test_options_by_letter_are_read_as_their_texts(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (question,) = ask("rl", tmp_path, rl(options={"A": "left", "B": "right"}))
    assert question.options == ["left", "right"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answer": "up"}, "answer: 'up' is not one of the options ['left', 'right']"),
        ({"answer": 4, "options": None}, "answer is no text: 4"),
        ({"problem": ["Where?"]}, "problem is no text"),
        ({"options": "left"}, "options are no texts: 'left'"),
        ({"image": [1]}, "image: 2 <image> in problem but 1 entries"),
        ({"image": 2}, "image is no list of frame numbers: 2"),
        ({"image": [1, 9]}, "image goes outside 1..8: [1, 9]"),
        ({"reasoning_image": [12]}, "reasoning_image goes outside 1..8: [12]"),
        ({"video": 3}, "video is no text: 3"),
    ],
)
def test_a_row_that_is_no_question_of_stage_2_is_refused(changes: Row, says: str, tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    (line,) = refused("rl", tmp_path, rl(), rl(**changes))
    assert line.startswith(f"row 1: {says}")


# Clips


@pytest.mark.parametrize("name", TASKS)
def test_clips_may_be_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "elsewhere", "clips/1.mp4")
    (line,) = refused(name, tmp_path, ROWS[name]())
    assert line == f"row 0: video is missing: {tmp_path}/clips/1.mp4; clips are looked for in {tmp_path} (--videos)"
    (question,) = ask(name, tmp_path, ROWS[name](), videos=tmp_path / "elsewhere")
    assert question.video == str(tmp_path / "elsewhere/clips/1.mp4")
    monkeypatch.chdir(tmp_path)
    (question,) = ask(name, tmp_path, ROWS[name](), videos=Path("elsewhere"))
    assert question.video == str(tmp_path / "elsewhere/clips/1.mp4")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("place", ["data/clips", "far/away"])
def test_an_absolute_path_is_that_clip_wherever_clips_are(name: str, place: str, tmp_path: Path) -> None:
    """Even if it lies beside the data, and one of that name where clips are."""
    put(tmp_path, f"{place}/1.mp4", "elsewhere/clips/1.mp4", "data/x")
    field = "video_path" if name == "futurebench" else "video"
    row = ROWS[name](**{field: str(tmp_path / place / "1.mp4")})
    for videos in (None, tmp_path / "elsewhere"):
        (question,) = ask(name, tmp_path / "data", row, videos=videos)
        assert question.video == str(tmp_path / place / "1.mp4")


@pytest.mark.parametrize("name", TASKS)
def test_a_question_is_called_the_same_wherever_its_clip_is(name: str, tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS[name]().items() if key != "id"}
    put(tmp_path, "clips/1.mp4", "elsewhere/clips/1.mp4")
    (here,), (there,) = ask(name, tmp_path, row), ask(name, tmp_path, row, videos=tmp_path / "elsewhere")
    assert here.id == there.id and here.video != there.video


def test_a_row_whose_id_is_empty_has_its_number(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    found = ask("futurebench", tmp_path, futurebench(id=None), futurebench(id=""), futurebench(id=0))
    assert [question.id for question in found] == ["0", "1", "0"]


def test_only_the_first_rows_are_read_if_so_wished(tmp_path: Path) -> None:
    put(tmp_path, "clips/1.mp4")
    rows = [futurebench(id=str(number)) for number in range(5)] + [futurebench(question_type="hop9")]
    assert [question.id for question in ask("futurebench", tmp_path, *rows, limit=3)] == ["0", "1", "2"]
    assert refused("futurebench", tmp_path, *rows, limit=9)[0].startswith("row 5: question_type")


def test_tasks_have_the_papers_budgets_and_scores() -> None:
    assert {name: (task.max_tokens, task.marks) for name, task in TASKS.items() if name != "synthetic"} == {
        "futurebench": (2048, False), "twiffbench": (4096, True), "rl": (2048, False),
    }  # fmt: skip
