"""What scoring leaves: a parquet file per shard of candidates, with every rollout and the counts that selection goes by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from future_l1_verl.data.files import whole

Score = dict[str, Any]

CONDITIONS = ("base", "hint")  # from the observed frames alone, and with the future frames as hints

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
    """A folder holds no scores; the message names it and what is wrong."""


MEASURED = b"measured"  # key of a file's metadata: what its making took, as JSON


def write(path: Path, scores: Sequence[Score], measured: dict[str, float]) -> None:
    """Writes a file of scores, whole, and what it took."""
    table = pa.Table.from_pylist(list(scores), SCHEMA.with_metadata({MEASURED: json.dumps(measured).encode()}))
    with whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def measured(path: Path) -> dict[str, float]:
    """Returns the seconds and counts that the making of a file took (`data_prep.curation.stages`)."""
    return json.loads(pq.read_schema(path).metadata[MEASURED])


def rows(path: Path) -> list[Score]:
    """The scores of a file, in order."""
    return pq.read_table(path).to_pylist()


def shards(folder: Path) -> list[Path]:
    """The finished shards in a folder that ``score`` wrote to. Raises ScoresError if there are none."""
    found = sorted((folder / "scores").glob("shard-*.parquet"))
    if not found:
        raise ScoresError(f"{folder}: holds no scores/shard-*.parquet; is it a folder that `score` wrote to?")
    return found


def read(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The scores of all finished shards, in order, or only some of their ``columns``. Raises ScoresError."""
    tables = [pq.read_table(shard, columns=list(columns) if columns else None) for shard in shards(folder)]
    return pa.concat_tables(tables)
