"""Candidates for curation: one schema for all data sets, read and written as a stream."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from future_l1_verl.data.rows import IMAGE, VIDEO, Row, RowError, Turn
from future_l1_verl.data.twiff import POOL
from future_l1_verl.files import whole

Candidate = dict[str, Any]

SCHEMA = pa.schema([
    pa.field("id", pa.string(), nullable=False),  # unique in its file
    pa.field("source", pa.string(), nullable=False),  # the file and the number of the row it was read from
    pa.field("video", pa.string(), nullable=False),  # path relative to the folder of videos
    pa.field("question", pa.string(), nullable=False),  # with one <image> for each entry of image
    pa.field("answer", pa.string(), nullable=False),  # the answer for the judge
    pa.field("options", pa.list_(pa.string()), nullable=False),  # empty for an open question
    pa.field("image", pa.list_(pa.int32()), nullable=False),  # observed frames, 1-based entries of TwiFF's pool
    pa.field("reasoning_image", pa.list_(pa.int32()), nullable=False),  # future frames; none if the data set names none
    pa.field("response", pa.string(), nullable=False),  # reasoning and answer, one <image> for each future frame; may be empty
    pa.field("category", pa.string(), nullable=False),  # of the question; may be empty
])  # fmt: skip

# The results of `select`, also in the published Future-L1-50K: numbers of right answers of eight.
GAINS = tuple(pa.field(name, pa.int32()) for name in ("gain", "base_correct", "hint_correct"))
READ = pa.schema([*SCHEMA, *GAINS])

ROWS_AT_ONCE = 10_000


class CandidateError(ValueError):
    """A file does not hold candidates; the message names it and what is wrong."""


def candidate(row: Row, root: Path) -> Candidate:
    """Returns a row's candidate, with its clip relative to ``root``; a clip that is shown whole becomes its pool of frames.

    Raises RowError unless the row is one question about frames of one clip.
    """
    turn, image = row.turns[-1], [item for item in row.observed if isinstance(item, int)]
    if len(row.turns) > 1 or not row.clip or (not image and len(row.observed) > 1):
        raise RowError(f"no candidate: it has {len(row.turns)} turns and {len(row.observed)} pictures or clips of its own")
    question = turn.text
    if not image:
        image, question = list(range(1, POOL + 1)), question.replace(VIDEO, IMAGE * POOL)
    folder, name = os.path.split(row.clip)
    video = os.path.join(_relative(folder, str(root)), name)
    digest = hashlib.sha256(f"{video}\0{question}\0{row.truth}".encode()).hexdigest()[:24]
    return {
        "id": row.id or digest,
        "source": row.source,
        "video": video,
        "question": question,
        "answer": row.truth,
        "options": list(row.options),
        "image": image,
        "reasoning_image": list(row.future),
        "response": row.response,
        "category": row.category,
        **dict(zip(("gain", "base_correct", "hint_correct"), row.gains or (None, None, None), strict=True)),
    }


@lru_cache(maxsize=100_000)
def _relative(folder: str, root: str) -> str:
    """Returns a relative folder, with links resolved, since ``..`` follows them; clips are not, as their names hold ids."""
    found = os.path.relpath(Path(folder).resolve(), Path(root).resolve())
    return "" if found == "." else found


def as_row(candidate: Candidate, videos: Path) -> Row:
    """Returns a candidate as a row whose clip is in the folder ``videos``. Raises RowError if it breaks a rule of rows."""
    return Row(
        turns=(Turn("user", candidate["question"]),),
        observed=tuple(candidate["image"]),
        response=candidate["response"],
        future=tuple(candidate["reasoning_image"]),
        truth=candidate["answer"],
        options=tuple(candidate["options"]),
        video=str(videos / candidate["video"]),
        id=candidate["id"],
        source=candidate["source"],
    )


def write(path: Path, candidates: Iterable[Candidate], schema: pa.Schema = SCHEMA) -> int:
    """Writes candidates to a parquet file, atomically, and returns their number."""
    source, count = iter(candidates), 0
    with whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while rows := list(islice(source, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def count(path: Path) -> int:
    """Returns the number of candidates in a file. Raises CandidateError."""
    return _open(path).metadata.num_rows


def read(path: Path, columns: Sequence[str] | None = None) -> Iterator[Candidate]:
    """Yields the candidates of a file, in order, or only some of their ``columns``. Raises CandidateError."""
    for batch in _open(path).iter_batches(ROWS_AT_ONCE, columns=list(columns) if columns else None):
        yield from batch.to_pylist()


def part(path: Path, start: int, stop: int) -> list[Candidate]:
    """Returns candidates ``start`` to ``stop`` (exclusive, or to the end of the file). Raises CandidateError."""
    file, first, found = _open(path), 0, []
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        low, high = max(start - first, 0), min(stop - first, rows)
        if low < high:
            found += file.read_row_group(group).slice(low, high - low).to_pylist()
        first += rows
    return found


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise CandidateError(f"{path}: cannot be read ({error}); `read` of data_prep.curation writes such files") from error
    missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
    if missing:
        raise CandidateError(f"{path}: lacks {', '.join(missing)}; `read` of data_prep.curation writes such files")
    return file
