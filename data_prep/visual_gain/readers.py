"""Files of data sets as a stream of candidates: parquet, a JSON array, or JSON lines; rows may have any form of `forms`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.visual_gain.candidates import ROWS_AT_ONCE, Candidate
from future_l1_verl.data.forms import FIELDS, candidate
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import Skipped


def read(paths: Sequence[Path], videos: Path, skipped: Skipped, limit: int | None = None) -> Iterator[Candidate]:
    """The candidates of the first ``limit`` rows. Rows that make none, or whose id an earlier one has, go to ``skipped``.

    Raises RowError for a file that is missing or of another kind, and as soon as it is certain that too many rows are skipped;
    with JSON, whose rows are not known beforehand, that is for the caller to check at the end.
    """
    known = total(paths, limit)
    first: dict[str, str] = {}
    for source, row in islice(((f"{path}: row {number}", row) for path in paths for number, row in _rows(path)), limit):
        try:
            if isinstance(row, RowError):
                raise row
            found = candidate(row, source, videos)
            earlier = first.setdefault(found["id"], source)
            if earlier != source:
                raise RowError(f"id is taken: {found['id']!r} is that of {earlier}")
        except RowError as error:
            skipped.add(source, str(error))
            if known is not None:
                skipped.check(known)
            continue
        yield found


def total(paths: Sequence[Path], limit: int | None = None) -> int | None:
    """How many rows there are to read; None if a file does not say so beforehand. Raises RowError."""
    if any(_suffix(path) != ".parquet" for path in paths):
        return None
    rows = sum(_open(path).metadata.num_rows for path in paths)
    return rows if limit is None else min(rows, limit)


def _rows(path: Path) -> Iterator[tuple[int, object]]:
    """Number and content of each row; the content of one that cannot be read is a RowError."""
    match _suffix(path):
        case ".parquet":
            yield from _parquet(path)
        case ".json":
            yield from _json(path)
        case ".jsonl":
            yield from _json_lines(path)


def _suffix(path: Path) -> str:
    if not path.is_file():
        raise RowError(f"{path}: no such file")
    if path.suffix not in (".parquet", ".json", ".jsonl"):
        raise RowError(f"{path}: {path.suffix or 'no'} suffix; a .parquet, .json or .jsonl file is needed")
    return path.suffix


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise RowError(f"{path}: cannot be read ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[int, object]]:
    """Only the columns that a form is read from: those of frames are most of a file of TwiFF."""
    file = _open(path)
    columns = [name for name in file.schema_arrow.names if name in FIELDS]
    number, end = 0, 0
    for group in range(file.num_row_groups):
        end += file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns):
                for row in _decoded(batch):
                    yield number, row
                    number += 1
        except (OSError, pa.ArrowException) as error:
            # Pages hold columns, not rows: what follows in a group of rows is lost with a page.
            lost = RowError(f"page of the file is corrupt: {str(error).splitlines()[0]}")
            yield from ((row, lost) for row in range(number, end))
            number = end


def _decoded(batch: pa.RecordBatch) -> Iterator[object]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(len(batch)):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield RowError(f"text is not UTF-8: {error}")


def _json(path: Path) -> Iterator[tuple[int, object]]:
    number = 0
    with path.open("rb") as file:
        try:
            for row in ijson.items(file, "item", use_float=True):
                yield number, row
                number += 1
        except ijson.JSONError as error:
            yield number, RowError(f"JSON breaks off: the rest of the file is lost ({str(error).splitlines()[0]})")


def _json_lines(path: Path) -> Iterator[tuple[int, object]]:
    with path.open("rb") as file:
        for number, line in enumerate(line for line in file if line.strip()):
            try:
                yield number, json.loads(line)
            except ValueError as error:  # no JSON, or not UTF-8
                yield number, RowError(f"line is no JSON: {error}")
