"""Rows of all forms as candidates, and a table of what is wrong with bad ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.visual_gain import candidates, readers
from future_l1_verl.data.forms import candidate
from future_l1_verl.rewards.options import asked, inlined
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import Skipped
from future_l1_verl.rewards.answer import LETTERS

VIDEOS = Path("/videos")
Row = dict[str, Any]


def twiff(**changed: Any) -> Row:
    row = {
        "video": "a/clip.mp4",
        "question": "What happens?",
        "answer": "THOUGHT 1: <image>It rises.THOUGHT 2: <image>It falls.<answer>It lands.</answer>",
        "question_images_index": [1, 2],
        "reasoning_images_index": [5, 7],
        "meta_data": {"classification": "Predictive", "start": 1.0, "end": 9.0, "Process": "up", "Summary": "down"},
    }
    return row | changed


def talk(**changed: Any) -> Row:
    turns = [
        {"from": "human", "value": "<image>See <image>this?"},
        {"from": "gpt", "value": "THOUGHT 1: <image><reason>It rises.</reason><answer>It lands.</answer>"},
    ]
    row = {"conversations": turns, "video": "clip.mp4", "image": [1, 3], "reasoning_image": [6], "answer": "It lands."}
    return row | {"gain": 3, "correct_in_8_base": 1, "correct_in_8_hint": 4} | changed


def said(human: str, gpt: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


def question(**changed: Any) -> Row:
    qa = {"Question": "Where to?", "Options": {"A": "left", "B": "right"}, "Answer": "B"}
    return {"id": 7, "question_type": "1-hop", "video_path": "clip.mp4", "qa": qa} | changed


def flat(**changed: Any) -> Row:
    return {"video": "clip.mp4", "question": "Where to?", "options": ["left", "right"], "answer": "right"} | changed


def read(*paths: Path, folder: Path, rate: float = 0.99, limit: int | None = None) -> tuple[list[Row], list[Row]]:
    """Candidates and the lines of the manifest."""
    skipped = Skipped(folder / "skipped.jsonl", rate, "--max-bad-rate")
    found = list(readers.read(paths, VIDEOS, skipped, limit))
    lines = skipped.manifest.read_text().splitlines() if skipped.manifest.exists() else []
    return found, [json.loads(line) for line in lines]


def json_file(folder: Path, *rows: Any, suffix: str = ".json") -> Path:
    path = folder / f"rows{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_of_twiff() -> None:
    found = candidate(twiff(), "file: row 3", VIDEOS)
    assert len(found.pop("id")) == 24
    assert found == {
        "source": "file: row 3",
        "video": "a/clip.mp4",
        "question": "<image><image>What happens?",
        "answer": "It lands.",
        "options": [],
        "image": [1, 2],
        "reasoning_image": [5, 7],
        "response": "<image>It rises.<image>It falls.<answer>It lands.</answer>",
        "category": "predictive",
    }


def test_a_conversation() -> None:
    found = candidate(talk(id="one", category="camera"), "file: row 0", VIDEOS)
    assert found["id"] == "one" and found["category"] == "camera"
    assert found["question"] == "<image>See <image>this?" and found["answer"] == "It lands."
    assert (found["image"], found["reasoning_image"]) == ([1, 3], [6])
    assert found["response"] == "<image><reason>It rises.</reason><answer>It lands.</answer>"
    columns = {key: [turn[key] for turn in talk()["conversations"]] for key in ("from", "value")}
    assert candidate(talk(id="one", category="camera", conversations=columns), "file: row 0", VIDEOS) == found


def test_a_question_shows_the_whole_pool() -> None:
    found = candidate(question(), "file: row 0", VIDEOS)
    assert found == {
        "id": "7",
        "source": "file: row 0",
        "video": "clip.mp4",
        "question": "<image>" * 8 + "Where to?\nA. left\nB. right",
        "answer": "B",
        "options": ["left", "right"],
        "image": [1, 2, 3, 4, 5, 6, 7, 8],
        "reasoning_image": [],
        "response": "",
        "category": "1-hop",
    }


@pytest.mark.parametrize(
    "row",
    [
        question(qa=json.dumps(question()["qa"])),
        {"id": 7, "question_type": "1-hop", "video": "clip.mp4", **question()["qa"]},
        flat(id=7, question_type="1-hop", answer="B"),
        flat(id=7, question_type="1-hop", answer="B", options=["A. left", "B. right"]),
        flat(id=7, question_type="1-hop", answer="<answer>B</answer>", options={"A": "left", "B": "right", "C": None}),
        {"id": 7, "question_type": "1-hop", "video": "clip.mp4", "problem": "Where to?\nA. left\nB. right", "answer": "B"},
        flat(id=7, question_type="1-hop", answer="B", question="Where to?\nA. left\nB. right"),
    ],
)
def test_all_variants_of_a_question_say_the_same(row: Row) -> None:
    assert candidate(row, "file: row 0", VIDEOS) == candidate(question(), "file: row 0", VIDEOS)


@pytest.mark.parametrize(
    ("row", "answer", "response"),
    [
        (twiff(answer="It lands."), "It lands.", ""),
        (twiff(answer="<image>Up.<image>It lands."), "It lands.", "<image>Up.<image>It lands."),
        (twiff(answer="Up.<answer>Down.</answer>", reasoning_images_index=[]), "Down.", "Up.<answer>Down.</answer>"),
        (talk(conversations=said("Now?", "<image>It rises."), answer="It lands."), "It lands.", "<image>It rises."),
        (talk(answer=None), "It lands.", "<image><reason>It rises.</reason><answer>It lands.</answer>"),
        (talk(conversations=said("Now?", "<image>Up"), answer="<image>Up <answer>so</answer>"), "so", "<image>Up"),
    ],
)
def test_the_short_answer_is_found_wherever_it_stands(row: Row, answer: str, response: str) -> None:
    found = candidate(row, "file: row 0", VIDEOS)
    assert (found["answer"], found["response"]) == (answer, response)


def test_metadata_may_be_json_and_absolute_paths_become_relative() -> None:
    found = candidate(twiff(meta_data='{"classification": "camera"}', video="/videos/b/x.mp4"), "file: row 0", VIDEOS)
    assert (found["category"], found["video"]) == ("camera", "b/x.mp4")


def test_absolute_paths_are_relative_to_where_a_linked_folder_is(tmp_path: Path) -> None:
    """The clip itself may be a link, as in a cache of downloads: its name is kept."""
    (tmp_path / "disk/deep/clips").mkdir(parents=True)
    (tmp_path / "blob").write_bytes(b"clip")
    (tmp_path / "disk/deep/clips/x.mp4").symlink_to(tmp_path / "blob")
    (tmp_path / "videos").symlink_to(tmp_path / "disk/deep/clips")
    for folder in ("videos", "disk/deep/clips", "disk/deep"):
        found = candidate(twiff(video=str(tmp_path / "disk/deep/clips/x.mp4")), "file: row 0", tmp_path / folder)
        assert (tmp_path / folder / found["video"]).read_bytes() == b"clip"
        assert Path(found["video"]).name == "x.mp4"


def test_ids_are_the_same_in_every_run_and_differ_by_what_is_asked() -> None:
    rows = [twiff(), twiff(video="b.mp4"), twiff(question="Why?"), twiff(answer="<image>Up.<image>Down.")]
    ids = [candidate(row, "file: row 0", VIDEOS)["id"] for row in rows]
    assert len(set(ids)) == len(rows)
    assert [candidate(row, "other: row 9", VIDEOS)["id"] for row in rows] == ids


option = st.text(st.characters(categories=["Ll", "Zs"]), min_size=1).map(" ".join).filter(lambda text: len(text.strip()) > 1)


@given(st.text(st.characters(categories=["Ll"]), max_size=20), st.lists(option, min_size=2, max_size=len(LETTERS)))
def test_options_are_read_back_from_the_question_and_put_there_once(text: str, options: list[str]) -> None:
    options = [" ".join(option.split()) for option in options]
    once = asked(f"{text}?", options)
    assert inlined(once) == options
    assert asked(once, options) == once
    assert once.splitlines()[1:] == [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def test_options_in_one_line_count_and_a_name_with_a_letter_does_not() -> None:
    assert inlined("Where to? (A) left (B) right (C) up") == ["left", "right", "up"]
    assert inlined("What next? A. left B. right C. up D. down") == ["left", "right", "up", "down"]
    assert inlined("What next?\nOptions: A. left B. right.") == ["left", "right."]
    assert inlined("What next?\nA. left B. right\nC. up") == ["left", "right", "up"]
    assert inlined("Player A. looks. Where to?\nA. left\nB. right") == ["left", "right"]
    assert inlined("Player A. looks. Where to?\nA. to B. there\nB. right") == ["to B. there", "right"]


@pytest.mark.parametrize(
    "prose",
    [
        "What does player A. do?",
        "Vitamin A. He picks B. then?",
        "Vitamin A. He picks B. then. What next?",
        "He waits. A. Smith looks at B. Jones. What next?",
        "Say what follows vitamin A. and B. in the film.",
    ],
)
def test_letters_in_prose_are_no_options(prose: str) -> None:
    assert inlined(prose) == []
    assert candidate(flat(question=prose, options=None, answer="It turns."), "file: row 0", VIDEOS)["options"] == []


# What is wrong, and how the reason begins.
BAD: dict[str, tuple[Any, str]] = {
    "no object": (["video"], "no object with fields: ['video']"),
    "no form": ({"video": "x.mp4", "text": "?"}, "no known form: neither TwiFF nor conversations nor a question"),
    "no video": (twiff(video=None), "video or video_path is missing"),
    "video of another type": (twiff(video=["x.mp4"]), "video is no text: ['x.mp4']"),
    "empty video": (twiff(video=" "), "video is empty"),
    "no question": (twiff(question=None), "question is missing"),
    "no answer": (twiff(answer=None), "answer is missing"),
    "empty answer": (twiff(answer=""), "answer is empty"),
    "answer as a number": (twiff(answer=3), "answer is no text: 3"),
    "nothing after the frames": (twiff(answer="Up.<image>Down.<image>"), "answer is empty: nothing follows the last <image>"),
    "half an answer": (twiff(answer="<image>Up.<image><answer>Down."), "answer is not clear: one pair"),
    "a frame as an answer": (
        twiff(answer="<image>Up.<answer><image></answer>"), "answer is not clear: one pair"),
    "indices missing": (twiff(question_images_index=None), "question_images_index is missing"),
    "future indices missing": (twiff(reasoning_images_index=None), "reasoning_images_index is missing"),
    "index 0": (twiff(question_images_index=[0, 1]), "question_images_index goes outside 1..8: [0, 1]"),
    "index 9": (twiff(reasoning_images_index=[5, 9]), "reasoning_images_index goes outside 1..8: [5, 9]"),
    "indices as text": (twiff(question_images_index="1,2"), "question_images_index is no list of frame numbers: '1,2'"),
    "an index as a fraction": (twiff(question_images_index=[1.0]), "question_images_index is no list of frame numbers: [1.0"),
    "no observed frame": (twiff(question_images_index=[]), "no observed frame"),
    "too few placeholders": (twiff(question="<image>?"), "placeholders do not fit: 1 <image> in the question, 2 observed"),
    "too many frames": (
        twiff(answer="<image>Up."), "placeholders do not fit: 1 <image> in the response, 2 future frames"),
    "frames without a place": (
        twiff(answer="Up.<answer>Down.</answer>"), "placeholders do not fit: 0 <image> in the response, 2 future frames"),
    "metadata of another type": (twiff(meta_data=[1]), "meta_data is no object: [1]"),
    "metadata no JSON": (twiff(meta_data="{"), "meta_data is no JSON: Expecting property name"),
    "id of another type": (twiff(id=[1]), "id is neither a text nor a number: [1]"),
    "no gpt turn": (talk(conversations=said("?", "!")[:1]), "conversations are not a text of human and one of gpt: [{"),
    "turns of another form": (talk(conversations=["what?", "left"]), "conversations are not a text of human and one of gpt: ["),
    "a turn of another type": (talk(conversations=said("?", 3)), "conversations are not a text of human and one of gpt: [{"),  # type: ignore[arg-type]
    "too many placeholders": (
        talk(conversations=said("<image>?", "<image>")), "placeholders do not fit: 1 <image> in the question, 2 observed"),
    "conversation without an answer": (talk(conversations=said("?", "<image>Up."), answer=None), "answer is missing"),
    "letter beyond the options": (question(qa=question()["qa"] | {"Answer": "C"}), "no option is the answer: 'C' is not one"),
    "text of no option": (flat(answer="up"), "no option is the answer: 'up' is not one of ['left', 'right']"),
    "letter without options": (flat(options=None, answer="B"), "no options: the answer is 'B'"),
    "one option": (flat(options=["right"]), "options are not 2 to 10 different ones: ['right']"),
    "the same option twice": (flat(options=["right", "Right."]), "options are not 2 to 10 different ones"),
    "letters with a gap": (flat(options={"A": "left", "C": "right"}), "options do not go by letters from A on: ['A', 'C']"),
    "options as a text": (flat(options="left, right"), "options are no texts: 'left, right'"),
    "option as a number": (flat(options=[1, 2]), "options are no texts: [1, 2]"),
    "qa of another type": (question(qa=["?"]), "qa is no object: ['?']"),
    "id taken": (twiff(), "id is taken: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_listed_with_its_reason_and_stops_no_other(name: str, tmp_path: Path) -> None:
    bad, reason = BAD[name]
    path = json_file(tmp_path, twiff(), bad, talk())
    found, (listed,) = read(path, folder=tmp_path)
    assert [row["source"] for row in found] == [f"{path}: row 0", f"{path}: row 2"]
    assert listed["source"] == f"{path}: row 1"
    assert listed["reason"].startswith(reason)


def test_a_taken_id_names_the_first_row_that_has_it_in_whichever_file(tmp_path: Path) -> None:
    one = json_file(tmp_path, twiff(), talk(id="x"))
    other = json_file(tmp_path, talk(id="y"), talk(id="x"), suffix=".jsonl")
    found, (listed,) = read(one, other, folder=tmp_path)
    assert len(found) == 3
    assert listed == {"source": f"{other}: row 1", "reason": f"id is taken: 'x' is that of {one}: row 1"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_candidates(suffix: str, tmp_path: Path) -> None:
    rows = [twiff(video=f"{n}.mp4") for n in range(5)]
    if suffix == ".parquet":
        path = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    else:
        path = json_file(tmp_path, *rows, suffix=suffix)
    found, listed = read(path, folder=tmp_path)
    assert found == [candidate(row, f"{path}: row {n}", VIDEOS) for n, row in enumerate(rows)] and not listed
    assert read(path, folder=tmp_path, limit=3)[0] == found[:3]
    # What is written is what was read.
    candidates.write(tmp_path / "out.parquet", found)
    assert list(candidates.read(tmp_path / "out.parquet")) == found


def test_columns_of_images_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = []
    iter_batches = pq.ParquetFile.iter_batches

    def recorded(self: pq.ParquetFile, *args: Any, columns: list[str], **others: Any) -> Any:
        asked_for.extend(columns)
        return iter_batches(self, *args, columns=columns, **others)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    rows = [twiff() | {"question_images": [b"png"], "reasoning_images": [b"png"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert len(read(tmp_path / "rows.parquet", folder=tmp_path)[0]) == 1
    assert sorted(asked_for) == sorted(twiff())


def test_a_corrupt_page_costs_its_group_of_rows_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist([twiff(video=f"{n}.mp4") for n in range(9)])
    pq.write_table(table, path, row_group_size=3, write_page_checksum=True, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(table.column_names.index("question"))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)
    found, listed = read(path, folder=tmp_path)
    assert [row["video"] for row in found] == [f"{n}.mp4" for n in (0, 1, 2, 6, 7, 8)]
    assert [line["source"] for line in listed] == [f"{path}: row {n}" for n in (3, 4, 5)]
    assert all(line["reason"].startswith("page of the file is corrupt: ") for line in listed)


def test_a_text_of_parquet_that_is_not_utf_8_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([twiff(video=f"{n}.mp4") for n in range(3)]), path, compression="none")
    content = path.read_bytes()
    assert content.count(b"1.mp4") > 0
    path.write_bytes(content.replace(b"1.mp4", b"\xff.mp4"))
    found, (listed,) = read(path, folder=tmp_path)
    assert [row["video"] for row in found] == ["0.mp4", "2.mp4"]
    assert listed["source"] == f"{path}: row 1" and listed["reason"].startswith("text is not UTF-8: ")


def test_json_that_breaks_off_gives_the_rows_before(tmp_path: Path) -> None:
    path = json_file(tmp_path, twiff(), talk(), flat())
    text = path.read_text()
    path.write_text(text[: text.index("Where to?")])
    found, (listed,) = read(path, folder=tmp_path)
    assert [row["source"] for row in found] == [f"{path}: row 0", f"{path}: row 1"]
    assert listed["source"] == f"{path}: row 2" and listed["reason"].startswith("JSON breaks off: the rest of the file is lost")


def test_a_line_that_is_no_json_costs_its_row(tmp_path: Path) -> None:
    path = json_file(tmp_path, twiff(), talk(), suffix=".jsonl")
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, b'{"video": ', b'{"video": "\xff"}', b"", second]))
    found, listed = read(path, folder=tmp_path)
    assert [row["source"] for row in found] == [f"{path}: row 0", f"{path}: row 3"]
    assert [line["source"] for line in listed] == [f"{path}: row 1", f"{path}: row 2"]
    assert all(line["reason"].startswith("line is no JSON: ") for line in listed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a,b", r"rows\.csv: \.csv suffix; a \.parquet, \.json or \.jsonl file is needed"),
        ("rows", "", r"rows: no suffix"),
        ("rows.parquet", "PAR1", r"rows\.parquet: cannot be read"),
        ("gone.json", None, r"gone\.json: no such file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_named(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RowError, match=message):
        read(tmp_path / name, folder=tmp_path)


def test_parquet_stops_as_soon_as_too_many_are_bad_for_certain(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [twiff(video=f"{n}.mp4") for n in range(100)]
    for n in range(10, 90):
        rows[n]["answer"] = ""
    pq.write_table(pa.Table.from_pylist(rows), path)
    stream = readers.read([path], VIDEOS, Skipped(tmp_path / "skipped.jsonl", 0.05, "--max-bad-rate"))
    assert len([next(stream) for _ in range(10)]) == 10
    # Five of a hundred may be bad: the sixth, row 15, ends it.
    with pytest.raises(RowError, match=r"6 of 100 rows cannot be used, more than --max-bad-rate=0\.05:\n(.*\n){5}.*row 15: "):
        next(stream)
