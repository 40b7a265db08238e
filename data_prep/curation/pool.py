"""Reads the columns that selection needs of millions of candidates and scores, and writes the selected candidates."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.curation import candidates, scores
from data_prep.curation.overlap import Overlap
from data_prep.curation.selection import Scored
from future_l1_verl.files import whole
from future_l1_verl.progress import Progress

COUNTS = ("base_correct", "hint_correct", "gain", "rollouts")
SELECTED = pa.schema([*candidates.SCHEMA, *[pa.field(name, pa.int32(), nullable=False) for name in COUNTS]])
ROLLOUTS = "base.list.element.seed"  # the narrowest column that has an entry for each rollout


@dataclass(frozen=True)
class Pool:
    """Columns of the file of candidates, and the overlaps with benchmarks by row."""

    ids: pa.ChunkedArray
    videos: pa.ChunkedArray
    categories: pa.ChunkedArray  # dictionary encoded
    future_frames: np.ndarray
    overlaps: dict[int, Overlap]

    def properties(self, scored: Scored) -> pd.DataFrame:
        """Returns the input of `strata.stratify`, with a row for each scored candidate."""
        category = self.categories.take(scored.row).to_pandas()
        return pd.DataFrame({
            "category": category.cat.set_categories(sorted(category.cat.categories)),
            "gain": scored.gain,
            "base_correct": scored.base,
            "future_frames": self.future_frames[scored.row],
        })  # fmt: skip


def read_pool(path: Path, overlap: Callable[[str, str], Overlap | None] | None) -> Pool:
    """Reads a pool; ``overlap`` maps a video and a question to an overlap; None skips questions. Raises CandidateError."""
    total, start = candidates.count(path), 0
    kept = ["id", "video", "category"]
    columns = [*kept, "reasoning_image", *(["question"] if overlap else [])]
    batches, future, overlaps = [], [np.zeros(0, np.int32)], {}
    with Progress(total=total, desc="reading candidates", unit="row") as bar:
        for batch in pq.ParquetFile(path).iter_batches(candidates.ROWS_AT_ONCE, columns=columns):
            if overlap:
                found = map(overlap, batch["video"].to_pylist(), batch["question"].to_pylist())
                overlaps |= {row: item for row, item in enumerate(found, start) if item is not None}
            future.append(pc.list_value_length(batch["reasoning_image"]).to_numpy())
            batches.append(batch.select(kept))
            start += len(batch)
            bar.update(len(batch))
    schema = pa.schema([candidates.SCHEMA.field(name) for name in kept])
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    return Pool(table["id"], table["video"], table["category"].dictionary_encode(), np.concatenate(future), overlaps)


def read_counts(folder: Path) -> pa.Table:
    """Returns ``id, base_correct, hint_correct, rollouts`` of all shards, without texts. Raises ScoresError naming a file."""
    tables = []
    for shard in Progress(scores.shards(folder), desc="reading scores", unit="shard"):
        try:
            table = pq.ParquetFile(shard).read(["id", "base_correct", "hint_correct", ROLLOUTS])
            rollouts = pc.list_value_length(table["base"])
            tables.append(table.select(["id", "base_correct", "hint_correct"]).append_column("rollouts", rollouts))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise scores.ScoresError(f"{shard}: cannot be read ({error}); delete it and let `score` make it again") from error
    return pa.concat_tables(tables).combine_chunks()


def write_members(out: Path, path: Path, scored: Scored, members: np.ndarray) -> None:
    """Writes ``members`` (indices into ``scored``) of the candidates in ``path``, in their order, with their counts."""
    rows = scored.row[members]
    wanted, parts, start = np.sort(rows), [], 0
    with Progress(total=candidates.count(path), desc=f"writing {out.name}", unit="row", leave=False) as bar:
        for batch in pq.ParquetFile(path).iter_batches(candidates.ROWS_AT_ONCE, columns=candidates.SCHEMA.names):
            low, high = np.searchsorted(wanted, [start, start + len(batch)])
            parts.append(batch.take(pa.array(wanted[low:high] - start)))
            start += len(batch)
            bar.update(len(batch))
    table = pa.Table.from_batches(parts).select(candidates.SCHEMA.names).take(np.searchsorted(wanted, rows))
    values = (scored.base, scored.hint, scored.gain, np.full(len(scored.row), scored.rollouts))
    for name, value in zip(COUNTS, values, strict=True):
        table = table.append_column(name, pa.array(value[members], pa.int32()))
    with whole(out) as temporary:
        pq.write_table(table.cast(SELECTED), temporary)
