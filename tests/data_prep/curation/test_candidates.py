"""Files of candidates: read in parts as lists are sliced, and written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.curation import candidates
from data_prep.curation.candidates import Candidate, CandidateError


def candidate(number: int) -> Candidate:
    return {
        "id": f"q{number}",
        "source": f"made: row {number}",
        "video": f"v{number}.mp4",
        "question": "<image>" * (number % 3) + f"Which, {number}?",
        "answer": "left",
        "options": ["left", "right"] * (number % 2),
        "image": list(range(1, 1 + number % 3)),
        "reasoning_image": list(range(4, 4 + number % 4)),
        "response": "",
        "category": "",
    }


@settings(deadline=None)
@given(count=st.integers(0, 40), at_once=st.integers(1, 12), start=st.integers(0, 60), stop=st.integers(0, 60))
def test_a_part_is_a_slice_wherever_row_groups_end(
    count: int, at_once: int, start: int, stop: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "sliced.parquet"
    rows = [candidate(number) for number in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "ROWS_AT_ONCE", at_once)
        assert candidates.write(file, iter(rows)) == count
        assert pq.ParquetFile(file).num_row_groups == -(-count // at_once)
        assert candidates.part(file, start, stop) == rows[start:stop]
        assert candidates.count(file) == count
        assert list(candidates.read(file)) == rows


def test_parts_of_one_size_are_all_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "ROWS_AT_ONCE", 4)
    rows = [candidate(number) for number in range(10)]
    candidates.write(tmp_path / "pool.parquet", rows)
    parts = [candidates.part(tmp_path / "pool.parquet", start, start + 3) for start in range(0, 12, 3)]
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [row for part in parts for row in part] == rows
    assert candidates.part(tmp_path / "pool.parquet", 10, 13) == []


def test_only_some_columns_are_read(tmp_path: Path) -> None:
    rows = [candidate(number) for number in range(3)]
    candidates.write(tmp_path / "pool.parquet", rows)
    found = list(candidates.read(tmp_path / "pool.parquet", ["id", "options"]))
    assert found == [{"id": row["id"], "options": row["options"]} for row in rows]


def test_further_columns_do_no_harm(tmp_path: Path) -> None:
    schema = candidates.SCHEMA.append(pa.field("gain", pa.int32()))
    candidates.write(tmp_path / "pool.parquet", [candidate(number) | {"gain": number} for number in range(3)], schema)
    found = candidates.part(tmp_path / "pool.parquet", 1, 3)
    assert [{name: row[name] for name in candidates.SCHEMA.names} for row in found] == [candidate(1), candidate(2)]


READERS: list[Callable[[Path], Any]] = [
    candidates.count,
    lambda path: list(candidates.read(path)),
    lambda path: list(candidates.read(path, ["id"])),
    lambda path: candidates.part(path, 0, 1),
]


@pytest.mark.parametrize("reader", READERS, ids=["count", "read", "read a column", "part"])
def test_what_holds_no_candidates_is_refused_by_name(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    lacking = tmp_path / "lacking.parquet"
    schema = pa.schema([field for field in candidates.SCHEMA if field.name not in ("answer", "image")])
    pq.write_table(pa.Table.from_pylist([candidate(0)], schema), lacking)
    with pytest.raises(CandidateError, match=r"lacking\.parquet: lacks answer, image;"):
        reader(lacking)
    other = tmp_path / "other.parquet"
    other.write_text("id,source,video\n")
    with pytest.raises(CandidateError, match=r"other\.parquet: cannot be read"):
        reader(other)
    with pytest.raises(CandidateError, match=r"missing\.parquet: cannot be read"):
        reader(tmp_path / "missing.parquet")


def breaking() -> Iterator[Candidate]:
    yield from (candidate(number) for number in range(5))
    raise RuntimeError("the source broke")


def unfit() -> Iterator[Candidate]:
    yield from (candidate(number) for number in range(5))
    yield candidate(5) | {"answer": None}


@pytest.mark.parametrize("source", [breaking, unfit])
@pytest.mark.parametrize("before", [True, False], ids=["a file before", "none before"])
def test_a_write_that_breaks_off_leaves_what_was_there_and_nothing_else(
    source: Callable[[], Iterator[Candidate]], before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "ROWS_AT_ONCE", 2)
    file, earlier = tmp_path / "pool.parquet", [candidate(number) for number in range(3)]
    if before:
        candidates.write(file, earlier)
        assert list(tmp_path.iterdir()) == [file]
    with pytest.raises((RuntimeError, pa.ArrowException)):
        candidates.write(file, source())
    assert list(tmp_path.iterdir()) == ([file] if before else [])
    if before:
        assert list(candidates.read(file)) == earlier
