"""``read``: candidates of data sets, with those left out whose rows or clips cannot be used."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from data_prep.visual_gain import candidates, checking, readers
from data_prep.visual_gain.checking import Checked
from future_l1_verl.data.files import whole
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import Skipped, counts

HELP = "candidates of TwiFF, of conversations or of questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", type=Path, nargs="+", action="extend", required=True, help=".parquet, .json or .jsonl files")
    parser.add_argument("--out", type=Path, required=True, help="parquet file of candidates; an earlier one is replaced")
    parser.add_argument("--videos", type=Path, help="folder that clips are relative to; by default that of the input")
    parser.add_argument("--manifest", type=Path, help="what was left out and why; by default beside --out, as .skipped.jsonl")
    parser.add_argument("--limit", type=int, help="read only so many rows")
    parser.add_argument("--max-bad-rate", type=float, default=0.01, help="share of rows above which the run ends")
    parser.add_argument("--decode", choices=checking.DECODE, default="first", help="how much of each clip to decode")
    parser.add_argument("--workers", type=int, default=2, help="processes that look at clips")


def run(args: argparse.Namespace) -> None:
    """Raises RowError if a file cannot be read or too many rows are left out; ``--out`` is as it was then."""
    manifest = args.manifest or args.out.with_suffix(".skipped.jsonl")
    videos = args.videos or _folder(args.input)
    checked = read(args.input, args.out, videos, manifest, args.max_bad_rate, args.limit, args.decode, args.workers)
    for table in summary(args.out, manifest, checked):
        Console().print(table)
    print(f"{args.out}: relative to the folder of videos {videos}; what was left out is listed in {manifest}")


def read(
    inputs: Sequence[Path],
    out: Path,
    videos: Path,
    manifest: Path,
    max_bad_rate: float,
    limit: int | None = None,
    decode: str = "first",
    workers: int = 2,
    check_clips: bool = True,
) -> Checked:
    """Writes the candidates to ``out`` once all is known to be well; what was seen of their clips. Raises RowError."""
    readers.total(inputs)  # a wrong path must not cost the manifest of an earlier run
    for option, path in (("--out", out), ("--manifest", manifest)):
        if path.resolve() in (given.resolve() for given in inputs):
            raise RowError(f"{path}: is one of the inputs; {option} would replace it")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("")
    skipped = Skipped(manifest, max_bad_rate, "--max-bad-rate")
    rows = readers.read(inputs, videos, skipped, limit)
    bar = tqdm(rows, desc="reading", total=readers.total(inputs, limit), unit="row", leave=False)
    with whole(out) as file:
        total = candidates.write(file, bar) + len(skipped.listed)
        if not total:
            raise RowError(f"{', '.join(map(str, inputs))}: no rows; a .json file has to be an array of them")
        skipped.check(total)
        checked = _check_clips(file, videos, skipped, total, decode, workers) if check_clips else Checked()
    return checked


def _check_clips(file: Path, videos: Path, skipped: Skipped, total: int, decode: str, workers: int) -> Checked:
    """Takes the candidates of bad clips out of a file; in Arrow, where millions of the others need not become objects."""
    clips = pq.read_table(file, columns=["video"])["video"].unique()
    most_bad = int(skipped.max_rate * total)  # a bad clip is at least one bad row
    checked = checking.check((clip.as_py() for clip in clips), len(clips), videos, decode, workers, most_bad)
    if checked.bad:
        bad = pa.array(list(checked.bad), pa.string())
        with whole(file) as kept, pq.ParquetWriter(kept, candidates.SCHEMA) as writer:
            for batch in pq.ParquetFile(file).iter_batches(candidates.ROWS_AT_ONCE):
                is_bad = pc.is_in(batch["video"], value_set=bad)
                for row in batch.select(["source", "video"]).filter(is_bad).to_pylist():
                    skipped.add(row["source"], checked.bad[row["video"]])
                writer.write_batch(batch.filter(pc.invert(is_bad)))
        skipped.check(total)
    return checked


def _folder(inputs: Sequence[Path]) -> Path:
    folders = {path.parent for path in inputs}
    if len(folders) > 1:
        raise RowError(f"the inputs lie in {len(folders)} folders; --videos has to say which one clips are relative to")
    return folders.pop()


def summary(out: Path, manifest: Path, checked: Checked) -> list[Table]:
    """How many rows became candidates, what was wrong with the others, and what the candidates are like."""
    table = pq.read_table(out, columns=["category", "image", "reasoning_image"])
    bad = counts(manifest)
    shown = [
        _table("rows", {"read": len(table) + bad.total(), "candidates": len(table), "left out": bad.total()}),
        _table("left out because", dict(bad.most_common())),
        _table("category", _counted(table["category"])),
        _table("observed frames", _counted(pc.list_value_length(table["image"]))),
        _table("future frames", _counted(pc.list_value_length(table["reasoning_image"]))),
    ]
    if checked.clips:
        clips = {"looked at": checked.clips, "bad": len(checked.bad)}
        if checked.frames:
            frames = sorted(checked.frames.elements())
            clips |= {"fewest frames": frames[0], "median": statistics.median_low(frames), "most": frames[-1]}
        shown.append(_table("clips", clips))
    return [table for table in shown if table.row_count]


def _counted(values: pa.ChunkedArray) -> Counter[str]:
    found = Counter({str(entry["values"]) or "none": entry["counts"] for entry in pc.value_counts(values).to_pylist()})
    return Counter(dict(sorted(found.items())))


def _table(title: str, content: dict[str, int]) -> Table:
    table = Table(title, "")
    table.columns[1].justify = "right"
    for name, number in content.items():
        table.add_row(name, f"{number:,}")
    return table
