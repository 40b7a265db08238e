"""Rows of training and evaluation files: read, checked, and their frames.

One reader for stage 1, stage 2 and evaluation, so that all three show the model the same frames of a clip.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from future_l1_verl.data.clips import Clips, Frame
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import VideoError, count_frames

Row = dict[str, Any]

_THOUGHT_MARKER = re.compile(r"THOUGHT \d+:\s*")

RL_COLUMNS = ("problem", "answer", "video", "image", "data_source")


class RowError(ValueError):
    """A row cannot be used; the message names the file, the row and the field."""


def read_rows(path: str | Path, columns: Sequence[str] = (), clips: Path | None = None) -> list[Row]:
    """Rows of a parquet, JSON or JSON-lines file, or of a folder that ``datasets.save_to_disk`` wrote. Paths (``video``,
    ``videos``, ``images``) become absolute: they are relative to the folder ``clips``, by default `folder_of` the file. Each
    row gets its ``source``, the file and its number.

    Raises RowError if the file is missing, broken, of another kind or empty, or naming all rows that lack one of ``columns``.
    """
    path = Path(path)
    if not path.exists():
        raise RowError(f"{path}: no such file")
    folder = (clips or folder_of(path)).absolute()
    try:
        match path.suffix:
            case _ if path.is_dir():
                rows = _saved_dataset(path)
            case ".parquet":
                rows = pq.read_table(path).to_pylist()
            case ".json":
                rows = json.loads(path.read_text(encoding="utf-8"))
            case ".jsonl":
                rows = list(_lines(path))
            case other:
                raise RowError(f"{path}: {other or 'no'} suffix; a .parquet, .json or .jsonl file is needed")
    except (pa.ArrowException, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RowError(f"{path}: cannot be read ({error})") from error
    if not rows:
        raise RowError(f"{path}: holds no rows")
    if not isinstance(rows, list):
        raise RowError(f"{path}: is no list of rows: {rows!r:.80}")
    problems = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.append(f"{path}: row {number} is no object with fields: {row!r:.80}")
            continue
        if missing := [column for column in columns if row.get(column) is None]:
            problems.append(f"{path}: row {number} lacks {', '.join(missing)}; needed are {', '.join(columns)}")
        row["source"] = f"{path}: row {number}"
        if isinstance(row.get("video"), str):
            row["video"] = str(folder / row["video"])
        for field in ("videos", "images"):
            if isinstance(row.get(field), list):
                row[field] = [str(folder / name) if isinstance(name, str) else name for name in row[field]]
    refuse(problems)
    return rows


def folder_of(data: Path) -> Path:
    """Where the clips of a file of rows, or of a folder of ``datasets.save_to_disk``, are looked for."""
    return data if data.is_dir() else data.parent


def refuse(problems: Sequence[str]) -> None:
    """Raises RowError with all problems (the first 20), one a line, if there are any."""
    if problems:
        raise RowError("\n".join(problems[:20]) + (f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""))


def split_of(row: Row) -> str:
    """What a row of `RL_COLUMNS` is counted with: its ``split``, or its ``data_source`` if it names none."""
    return row.get("split") or row["data_source"]


def _lines(path: Path) -> Iterator[Any]:
    # splitlines() would also split at U+2028 and others, which JSON allows inside a text.
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip():
                    yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RowError(f"{path}: line {number} cannot be read ({error})") from error


def _saved_dataset(folder: Path) -> list[Row]:
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except FileNotFoundError as error:
        raise RowError(f"{folder}: is no folder of datasets.save_to_disk") from error
    if not isinstance(found, Dataset):
        raise RowError(f"{folder}: holds several sets; name one: {', '.join(str(folder / name) for name in found)}")
    return found.to_list()


def check_frames(rows: Sequence[Row], texts: dict[str, Callable[[Row], str]], workers: int = 4) -> None:
    """Decodes every clip once and sees that each row's frames exist and have their placeholders.

    ``texts`` says for each field of frame indices which text its ``<image>`` stand in. Raises RowError naming all rows (the
    first 20) whose clip is missing or broken, or whose indices and placeholders do not fit.
    """
    videos = list(dict.fromkeys(row["video"] for row in rows))
    with ThreadPoolExecutor(workers) as pool:
        bar = tqdm(pool.map(_frames_or_error, videos), total=len(videos), desc="checking clips", unit="clip", leave=False)
        frames_of = dict(zip(videos, bar, strict=True))
    refuse([problem for row in rows for problem in _problems(row, frames_of[row["video"]], texts)])


def _frames_or_error(video: str) -> int | VideoError:
    try:
        return count_frames(video)
    except VideoError as error:
        return error


def _problems(row: Row, count: int | VideoError, texts: dict[str, Callable[[Row], str]]) -> Iterator[str]:
    if isinstance(count, VideoError):
        yield f"{row['source']}: video {count}"
        return
    for field, text in texts.items():
        try:
            numbers = frame_numbers(row[field], count)
            placeholders = text(row).count("<image>")
        except ValueError as error:
            yield f"{row['source']}: {field}: {error}"
            continue
        if not numbers or placeholders != len(numbers):
            yield f"{row['source']}: {field} names {len(numbers)} frames but {placeholders} <image> stand in the text"


def frames(row: Row, *fields: str, clips: Clips = Clips()) -> list[list[Frame]]:  # noqa: B008  without a cache
    """For each of the row's ``fields`` (1-based pool indices) its frames; the clip is decoded once. Raises RowError."""
    try:
        count = clips.count(row["video"])
        numbers = [frame_numbers(row[field], count) for field in fields]
        found = iter(clips.frames(row["video"], [number for group in numbers for number in group]))
    except ValueError as error:
        raise RowError(f"{row['source']}: {', '.join(fields)}: {error}") from error
    return [list(islice(found, len(group))) for group in numbers]


def turn(row: Row, speaker: str) -> str:
    """The only turn of ``human`` or ``gpt`` of a TwiFF conversation. Raises RowError if there is none or more than one.

    ``conversations`` may be a list of ``{from, value}`` or a dict of the two lists (verl-notes.md).
    """
    talk = row["conversations"]
    turns = (
        list(zip(talk["from"], talk["value"], strict=True))
        if isinstance(talk, dict)
        else [(t["from"], t["value"]) for t in talk]
    )
    values = [value for who, value in turns if who == speaker]
    if len(values) != 1:
        raise RowError(f"{row['source']}: conversations: {len(values)} turns from {speaker!r}, one is needed")
    return values[0]


def without_markers(text: str) -> str:
    """A response without the "THOUGHT n:" that TwiFF puts before each thought."""
    return _THOUGHT_MARKER.sub("", text)
