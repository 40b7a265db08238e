"""The results of scoring: a parquet file per shard of candidates, with every rollout and the counts for selection."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from future_l1_verl.files import whole

Score = dict[str, Any]

CONDITIONS = ("base", "hint")  # with observed frames only, and with future frames as hints

ROLLOUT = pa.struct([
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("text", pa.string()),  # null if generation failed
    pa.field("correct", pa.bool_()),  # null without a verdict
    pa.field("parsed", pa.bool_()),  # whether the text holds an answer; null without a verdict
    pa.field("error", pa.string()),  # why there is no text or no verdict
])  # fmt: skip

SCHEMA = pa.schema([
    pa.field("id", pa.string(), nullable=False),
    *[pa.field(condition, pa.list_(ROLLOUT), nullable=False) for condition in CONDITIONS],
    *[pa.field(f"{condition}_correct", pa.int32()) for condition in CONDITIONS],  # null unless each rollout has a verdict
])  # fmt: skip


class ScoresError(ValueError):
    """A folder does not hold scores; the message names it and what is wrong."""


MEASURED = b"measured"  # key of a file's metadata: seconds and counts of its computation, as JSON


def write(path: Path, scores: Sequence[Score], measured: dict[str, float]) -> None:
    """Writes a file of scores, atomically, with its measurements."""
    table = pa.Table.from_pylist(list(scores), SCHEMA.with_metadata({MEASURED: json.dumps(measured).encode()}))
    with whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def measured(path: Path) -> dict[str, float]:
    """Returns the seconds and counts of the computation of a file (`data_prep.curation.stages`)."""
    return json.loads(pq.read_schema(path).metadata[MEASURED])


def rows(path: Path) -> list[Score]:
    """Returns the scores of a file, in order."""
    return pq.read_table(path).to_pylist()


def shards(folder: Path) -> list[Path]:
    """Returns the finished shards in a folder of ``score``. Raises ScoresError if there are none."""
    found = sorted((folder / "scores").glob("shard-*.parquet"))
    if not found:
        raise ScoresError(f"{folder}: holds no scores/shard-*.parquet; is it a folder that `score` wrote to?")
    return found


def read(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the scores of all finished shards, in order, or only some of their ``columns``. Raises ScoresError."""
    tables = [pq.read_table(shard, columns=list(columns) if columns else None) for shard in shards(folder)]
    return pa.concat_tables(tables)
