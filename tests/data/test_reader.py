"""Files of every kind give the same rows, and what is broken in a file costs as little as it can."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from future_l1_verl.data.reader import read, total
from future_l1_verl.data.rows import BadRow, Row, RowError
from future_l1_verl.data.skipped import Skipped

Fields = dict[str, Any]


def fields(number: int, **changed: Any) -> Fields:
    return {
        "video": f"{number}.mp4",
        "question": "What next?",
        "answer": "It rises.<rimage>It falls.<ans>It lands.</ans>",
        "question_images_index": [1],
        "reasoning_images_index": [5],
    } | changed


ROWS = [fields(number) for number in range(5)]


def every(paths: list[Path], **how: Any) -> list[Row | BadRow]:
    return list(read(paths, require=lambda row: row, **how))


def lines(path: Path, rows: list[Fields], first: bytes = b"") -> list[Path]:
    path.write_bytes(first + b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return [path]


def saved(folder: Path, rows: list[Fields]) -> list[Path]:
    Dataset.from_list(rows).save_to_disk(str(folder / "saved"))
    return [folder / "saved"]


def saved_split(folder: Path, rows: list[Fields]) -> list[Path]:
    DatasetDict(test=Dataset.from_list(rows)).save_to_disk(str(folder / "dict"))
    return [folder / "dict"]


def shards(folder: Path, rows: list[Fields]) -> list[Path]:
    (folder / "shards").mkdir(parents=True)
    for number, part in enumerate((rows[:2], rows[2:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"shards/train-0000{number}-of-00002.parquet", row_group_size=2)
    return [folder / "shards"]


def text(path: Path, content: str, encoding: str = "utf-8") -> list[Path]:
    path.write_text(content, encoding=encoding)
    return [path]


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "JSON": lambda folder: text(folder / "rows.json", json.dumps(ROWS)),
    "JSON with a mark of its encoding": lambda folder: text(folder / "rows.json", json.dumps(ROWS), "utf-8-sig"),
    "JSON in an object": lambda folder: text(folder / "rows.json", json.dumps({"data": ROWS})),
    "JSON behind other entries": lambda folder: text(
        folder / "rows.JSON", json.dumps({"version": 2, "info": {"tags": ["a"]}, "annotations": ROWS}, indent=2)
    ),
    "JSON lines": lambda folder: lines(folder / "rows.jsonl", ROWS),
    "JSON lines with a mark": lambda folder: lines(folder / "rows.jsonl", ROWS, b"\xef\xbb\xbf"),
    "JSON lines by another name": lambda folder: lines(folder / "rows.json", ROWS),
    "parquet": lambda folder: sorted(shards(folder, ROWS)[0].iterdir()),
    "a folder of shards": lambda folder: shards(folder, ROWS),
    "save_to_disk": lambda folder: saved(folder, ROWS),
    "save_to_disk of one split": lambda folder: saved_split(folder, ROWS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    paths = KINDS[kind](tmp_path)
    found = every(paths)
    assert [row.video for row in found] == [str(found_in(paths[0]) / f"{number}.mp4") for number in range(5)]
    assert [row.number for row in found] == list(range(5))
    assert {row.response for row in found} == {"It rises.<image>It falls.<answer>It lands.</answer>"}
    assert every(paths, limit=3) == found[:3]
    # Parquet and saved sets name each row by its shard.
    assert [row.source.rpartition(": row ")[2] for row in found][-1] == ("2" if "parquet" in found[-1].source else "4")


def found_in(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def test_several_files_count_on_and_each_has_its_own_folder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        text(tmp_path / name / "rows.json", json.dumps(ROWS[:2]))
    found = every([tmp_path / "a/rows.json", tmp_path / "b/rows.json"])
    assert [(row.number, row.video) for row in found] == [
        (2 * place + number, str(tmp_path / name / f"{number}.mp4")) for place, name in enumerate("ab") for number in range(2)
    ]


def test_pictures_are_not_read_where_they_are_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    iter_batches = pq.ParquetFile.iter_batches

    def recorded(self: pq.ParquetFile, *args: Any, columns: list[str], **others: Any) -> Any:
        asked_for.extend(columns)
        return iter_batches(self, *args, columns=columns, **others)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    picture = {"bytes": b"png", "path": None}
    rows = [fields(0, question_images=[picture], reasoning_images=[picture], note="unused")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (row,) = every([tmp_path / "rows.parquet"], pictures=False)
    assert row.observed == (1,) and sorted(asked_for) == sorted(fields(0))
    (row,) = every(saved(tmp_path, rows), pictures=False)
    assert row.observed == (1,)


def test_a_corrupt_page_costs_its_group_of_rows_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist([fields(number) for number in range(9)])
    pq.write_table(table, path, row_group_size=3, write_page_checksum=True, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(table.column_names.index("question"))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)
    found = every([path])
    assert [Path(row.video).stem for row in found if isinstance(row, Row)] == ["0", "1", "2", "6", "7", "8"]
    bad = [row for row in found if isinstance(row, BadRow)]
    assert [row.source for row in bad] == [f"{path}: row {number}" for number in (3, 4, 5)]
    assert all(row.reason.startswith("page of the file is corrupt: ") for row in bad)


def test_a_text_of_parquet_that_is_not_utf_8_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), path, compression="none")
    content = path.read_bytes()
    assert content.count(b"1.mp4") > 0
    path.write_bytes(content.replace(b"1.mp4", b"\xff.mp4"))
    first, bad, last = every([path])
    assert (Path(first.video).name, Path(last.video).name) == ("0.mp4", "2.mp4")
    assert bad.source == f"{path}: row 1" and bad.reason.startswith("text is not UTF-8: ")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda content: content[: content.index("2.mp4")], "premature EOF"),
        (lambda content: content.replace('"2.mp4"', "NaN"), "NaN"),
        (lambda content: content.replace("[5]", f"[{10**30}]", 1), "integer overflow"),
        (lambda content: content + content, "trailing garbage"),
    ],
)
def test_an_array_that_is_damaged_is_refused(changed: Callable[[str], str], said: str, tmp_path: Path) -> None:
    """Nobody can tell how many rows are lost with the rest of it, so no share of bad rows would notice."""
    (path,) = text(tmp_path / "rows.json", changed(json.dumps(ROWS)))
    with pytest.raises(RowError, match=rf"rows\.json: JSON breaks off or is damaged: .*{said}"):
        every([path])


@pytest.mark.parametrize(
    "rows",
    [
        [{"tags": [1, 2]} | row for row in ROWS],
        [{"boxes": [{"x": 1}]} | row for row in ROWS],
        [{"note": {"data": [{}]}} | row for row in ROWS],
    ],
)
def test_lists_in_a_row_are_no_rows(rows: list[Fields], tmp_path: Path) -> None:
    assert [row.number for row in every(lines(tmp_path / "rows.json", rows))] == list(range(5))


def test_an_object_with_fields_of_its_own_is_no_row(tmp_path: Path) -> None:
    (path,) = text(tmp_path / "rows.json", json.dumps({"id": "set", "split": "test", "errors": [], "data": ROWS}))
    assert [row.number for row in every([path])] == list(range(5))


def test_sets_that_lie_together_are_not_mixed(tmp_path: Path) -> None:
    (path,) = text(tmp_path / "rows.json", json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(RowError, match=r"rows\.json: holds several sets, train, test; make one a file of its own"):
        every([path])
    for other in ("val-00000-of-00001", "Validation"):
        folder = shards(tmp_path / other, ROWS)[0]
        (folder / "train-00000-of-00002.parquet").rename(folder / f"{other}.parquet")
        with pytest.raises(RowError, match=r"shards: holds several sets; name the files of one: train, val"):
            every([folder])


def test_files_that_a_system_leaves_are_no_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path, ROWS)[0]
    for name in ("._train-00000-of-00002.parquet", "_metadata.parquet", ".tmp.parquet"):
        (folder / name).write_bytes(b"Mac OS X")
    assert len(every([folder])) == 5


def test_columns_that_no_format_knows_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt_text": ["?"], "target": ["!"]}), tmp_path / "rows.parquet")
    Dataset.from_dict({"prompt_text": ["?"], "target": ["!"]}).save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "rows.parquet", tmp_path / "saved"):
        with pytest.raises(RowError, match=rf"{path}: unknown form: .* has the fields prompt_text, target"):
            every([path])


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.int32()])
@pytest.mark.parametrize("listed", [pa.large_list, lambda item: pa.list_(item, 1), pa.list_])
def test_the_types_of_a_column_do_not_matter(kind: pa.DataType, listed: Callable[..., pa.DataType], tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    for name, values in table.to_pydict().items():
        column = pa.array(values, listed(kind)) if isinstance(values[0], list) else pa.array(values).dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [row.observed + row.future for row in every([tmp_path / "rows.parquet"])] == [(1, 5)] * 5


def test_a_line_that_is_no_json_costs_its_row(tmp_path: Path) -> None:
    (path,) = lines(tmp_path / "rows.jsonl", ROWS[:2])
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, b'{"video": ', b'{"video": "\xff"}', b"", b"[" * 100_000, second]))
    one, *bad, other = every([path])
    assert [row.source for row in (one, other)] == [f"{path}: row 0", f"{path}: row 4"]
    assert [row.source for row in bad] == [f"{path}: row {number}" for number in (1, 2, 3)]
    assert all(row.reason.startswith("line is not JSON: ") for row in bad)


def test_characters_that_end_a_line_elsewhere_are_part_of_a_text(tmp_path: Path) -> None:
    """U+2028 and others, which JSON allows inside a string."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(fields(n, question="What\u2028next\x85?"), ensure_ascii=False) for n in range(2)))
    assert [row.question for row in every([path])] == ["What\u2028next\x85?"] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"a,b", r"rows\.csv: \.csv suffix; a file with one of \.parquet, \.json, \.jsonl is needed"),
        ("rows", b"", r"rows: no suffix"),
        ("rows.parquet", b"PAR1", r"rows\.parquet: cannot be read"),
        ("rows.parquet", b"", r"rows\.parquet: cannot be read"),
        ("rows.json", b"[]", r"rows\.json: no rows"),
        ("rows.jsonl", b"\n\n", r"rows\.jsonl: no rows"),
        ("rows.json", b'{"version": 3}', r"rows\.json: is no array of rows, nor an object with one"),
        ("gone.json", None, r"gone\.json: no such file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RowError, match=message):
        every([tmp_path / name])


def test_a_folder_is_shards_or_one_saved_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RowError, match=r"empty: holds no \*\.parquet, and is no folder of datasets\.save_to_disk"):
        every([tmp_path / "empty"])
    two = DatasetDict(train=Dataset.from_list(ROWS[:1]), test=Dataset.from_list(ROWS[:1]))
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(RowError, match=rf"two: holds several sets; name one: {tmp_path}/two/train, {tmp_path}/two/test"):
        every([tmp_path / "two"])


def test_the_number_of_rows_is_known_of_parquet_alone(tmp_path: Path) -> None:
    paths = shards(tmp_path, ROWS)
    assert total(paths) == 5 and total(paths, limit=3) == 3
    assert total([*paths, *lines(tmp_path / "rows.jsonl", ROWS)]) is None


def test_skipped_rows_are_listed_once_and_too_many_are_refused_by_name(tmp_path: Path) -> None:
    rows = [*ROWS, fields(5, answer=""), fields(6, question_images_index=[9])]
    (path,) = lines(tmp_path / "rows.jsonl", rows)
    skipped = Skipped(tmp_path / "skipped.jsonl", max_rate=0.3)
    usable = skipped.usable(read([path], require=lambda row: row))
    assert [row.number for row in usable] == list(range(5))
    listed = [json.loads(line) for line in skipped.manifest.read_text().splitlines()]
    assert listed == [
        {"source": f"{path}: row 5", "reason": "answer is empty"},
        {"source": f"{path}: row 6", "reason": "frames go outside 1..8: [9]"},
    ]
    strict = Skipped(tmp_path / "strict.jsonl", max_rate=0.2)
    with pytest.raises(
        RowError, match=r"2 of 7 rows cannot be used, more than data\.max_bad_rate=0\.2:\n.*row 5: .*\n.*row 6: "
    ):
        strict.usable(read([path], require=lambda row: row))
