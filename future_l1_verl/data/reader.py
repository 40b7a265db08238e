"""Reads files of data sets as a stream of rows, whatever the format of each row; all commands use it.

Parquet files, JSON arrays (also in an object, as ``{"data": [...]}``), JSON lines, folders of parquet shards, and folders that
``datasets.save_to_disk`` wrote; all of them several at a time.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from future_l1_verl.data.formats import FIELDS, known, parse, unknown
from future_l1_verl.data.locate import Place, place
from future_l1_verl.data.rows import BadRow, Row, RowError
from future_l1_verl.data.skipped import reason

ROWS_AT_ONCE = 10_000
PICTURES = frozenset({"question_images", "reasoning_images"})  # most of the size of such a file
_SUFFIXES = (".parquet", ".json", ".jsonl")
_SPLIT = re.compile(r"(train|val|dev|test)(?:[a-z]*(?![a-z]))", re.IGNORECASE)  # at the start of a shard's name


def read(
    paths: Sequence[str | Path],
    videos: str | Path | None = None,
    limit: int | None = None,
    pictures: bool = True,
    require: Callable[[Row], Any] = Row.require_files,
) -> Iterator[Row | BadRow]:
    """Yields the rows of files in order, or what is wrong with them; ``videos`` says where clips are (`place`), by default
    beside the file.

    Without ``pictures`` embedded ones are not read and a row's frames come from its clip. ``require`` raises RowError for a
    row that the caller cannot use. Raises RowError for a file that is missing, of another kind or empty.
    """
    files = [(file, place(videos, Path(path))) for path in paths for file in _files(Path(path))]
    number = 0
    for file, where in files:
        for index, fields in _rows(file, where, pictures):
            if limit is not None and number >= limit:
                return
            yield _row(fields, f"{file}: row {index}", number, where, require)
            number += 1
    if not number:
        raise RowError(f"{', '.join(map(str, paths))}: no rows")


def total(paths: Sequence[str | Path], limit: int | None = None) -> int | None:
    """Returns the number of rows to read; None if a file does not state it. Raises RowError like `read`."""
    files = [file for path in paths for file in _files(Path(path))]
    if any(file.suffix.lower() != ".parquet" for file in files):
        return None
    rows = sum(_open(file).metadata.num_rows for file in files)
    return rows if limit is None else min(rows, limit)


def _row(fields: Any, source: str, number: int, where: Place, require: Callable[[Row], Any]) -> Row | BadRow:
    try:
        if isinstance(fields, RowError):
            raise fields
        row = parse(fields, source, number, where.locate)
        require(row)
    except Exception as error:  # rows come from anyone; a bad one must not stop the others
        return BadRow(source, reason(error))
    return row


def _files(path: Path) -> list[Path]:
    """Returns a single file, the shards of a folder, or the folder of a saved data set."""
    if not path.exists():
        raise RowError(f"{path}: no such file")
    if path.is_dir() and not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        shards = sorted(path.glob("[!._]*.parquet"))
        splits = {split[0].lower() for shard in shards if (split := _SPLIT.match(shard.name))}
        if len(splits) > 1:
            raise RowError(f"{path}: holds several sets; name the files of one: {', '.join(sorted(splits))}")
        if shards:
            return shards
        raise RowError(f"{path}: holds no *.parquet, and is no folder of datasets.save_to_disk")
    if path.is_file() and path.suffix.lower() not in _SUFFIXES:
        raise RowError(f"{path}: {path.suffix or 'no'} suffix; a file with one of {', '.join(_SUFFIXES)} is needed")
    return [path]


def _rows(path: Path, where: Place, pictures: bool) -> Iterator[tuple[int, Any]]:
    """Returns number and fields of each row; a RowError in place of fields that cannot be read."""

    def columns(schema: pa.Schema) -> list[str]:
        if not known(schema.names):
            raise RowError(f"{path}: {unknown(schema.names)}")
        found = [field.name for field in schema if field.name in FIELDS | where.fields or _may_name_frames(field)]
        return [name for name in found if pictures or name not in PICTURES]

    match path.suffix.lower():
        case _ if path.is_dir():
            return enumerate(_saved(path, columns))
        case ".parquet":
            return _parquet(path, columns)
        case ".json":
            return enumerate(_json(path))
        case _:
            return enumerate(_json_lines(path))


def _may_name_frames(field: pa.Field) -> bool:
    """Returns whether a column that no format reads may name frames in another way; columns of files do not."""
    return "frame" in field.name.lower() or (pa.types.is_nested(field.type) and "binary" not in str(field.type))


def _saved(folder: Path, columns: Callable[[pa.Schema], list[str]]) -> Iterator[Any]:
    from datasets import Dataset, load_from_disk

    found = load_from_disk(str(folder))
    if not isinstance(found, Dataset):
        if len(found) != 1:
            raise RowError(f"{folder}: holds several sets; name one: {', '.join(str(folder / name) for name in found)}")
        (found,) = found.values()
    found = found.select_columns(columns(found.features.arrow_schema))
    for batch in found.with_format("arrow").iter(ROWS_AT_ONCE):  # pictures stay as they are stored
        yield from batch.to_pylist()


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise RowError(f"{path}: cannot be read ({error})") from error


def _parquet(path: Path, columns: Callable[[pa.Schema], list[str]]) -> Iterator[tuple[int, Any]]:
    file = _open(path)
    read, number, end = columns(file.schema_arrow), 0, 0
    for group in range(file.num_row_groups):
        end += file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=read):
                for row in _decoded(batch):
                    yield number, row
                    number += 1
        except (OSError, pa.ArrowException) as error:
            # Pages hold columns, not rows: with a page, the rest of its group of rows is lost.
            lost = RowError(f"page of the file is corrupt: {str(error).splitlines()[0]}")
            yield from ((row, lost) for row in range(number, end))
            number = end


def _decoded(batch: pa.RecordBatch) -> Iterator[Any]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(len(batch)):
            try:
                yield batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield RowError(f"text is not UTF-8: {error}")


def _json(path: Path) -> Iterator[Any]:
    """Yields the rows of an array, which may be in an object, or of JSON lines in a file with this suffix."""
    with path.open("rb") as file:
        start = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
        file.seek(start)
        prefix = _array(path, file)
        if prefix is None:
            yield from _json_lines(path)
            return
        file.seek(start)
        try:
            yield from ijson.items(file, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            # The number of rows lost with the rest of the file is unknown.
            raise RowError(f"{path}: JSON breaks off or is damaged: {' '.join(str(error).split())}") from error


def _array(path: Path, file: Any) -> str | None:
    """Returns ijson's name of the array of rows in a JSON file; None if the file has one row per line. Raises RowError if it
    has no rows, or several arrays of them."""
    names, arrays = list[str](), set[str]()
    with suppress(ijson.JSONError):  # reading the rows says so
        for prefix, event, value in ijson.parse(file, multiple_values=True):
            match prefix, event:
                case "", "start_array":
                    return "item"
                case "", "map_key":
                    names.append(value)
                case _, "start_map" if prefix.endswith(".item"):
                    arrays.add(prefix)
                case "", "end_map":
                    break
    sets = [name for name in names if f"{name}.item" in arrays]
    if known(names) or (not sets and FIELDS.intersection(names)):
        return None
    if len(sets) != 1:
        several = f"holds several sets, {', '.join(sets)}; make one a file of its own"
        raise RowError(f"{path}: {several if sets else 'is no array of rows, nor an object with one'}")
    return f"{sets[0]}.item"


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in (line for line in file if line.strip()):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
                yield RowError(f"line is not JSON: {error}")
