"""``read``: writes the candidates of data sets, without rows or clips that cannot be used."""

import argparse
import hashlib
import math
import os
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from data_prep.curation import candidates, checking
from data_prep.curation.candidates import Candidate
from data_prep.curation.checking import Checked
from future_l1_verl.data import reader
from future_l1_verl.data.locate import place
from future_l1_verl.data.rows import BadRow, Row, RowError
from future_l1_verl.data.skipped import Skipped, counts, reason
from future_l1_verl.files import whole
from future_l1_verl.progress import Progress


class ClipsMissing(RowError):
    """More clips are missing than allowed; the counts are of rows."""

    def __init__(self, rows: int, missing: int, examples: Sequence[str]) -> None:
        super().__init__(f"{missing} of {rows} rows have no clip, such as {', '.join(examples)}")
        self.rows, self.missing, self.examples = rows, missing, examples


def run(args: argparse.Namespace) -> None:
    """Runs ``read``. Raises RowError, without changing ``--out``, if a file is unreadable or too many rows are left out."""
    manifest, videos = args.manifest or args.out.with_suffix(".skipped.jsonl"), args.videos or _folder(args.input)
    try:
        checked = read(
            args.input, args.out, videos, manifest, args.max_bad_rate, args.limit, args.decode, args.workers, args.max_missing
        )
    except ClipsMissing as error:
        there = {"rows": error.rows, "with a clip": error.rows - error.missing, "without": error.missing}
        Console().print(_table("clips", there), f"such as {', '.join(error.examples)}", soft_wrap=True)
        share = math.ceil(100 * error.missing / error.rows) / 100
        print(f"to go on with those that are there:\nfuture-l1 {shlex.join(sys.argv[1:])} --max-missing {share}")
        raise SystemExit(1) from error
    for table in summary(args.out, manifest, checked):
        Console().print(table)
    print(f"{args.out}: relative to {place(videos, args.input[0]).root}; what was left out is listed in {manifest}")


def read(
    inputs: Sequence[Path],
    out: Path,
    videos: str | Path,
    manifest: Path,
    max_bad_rate: float,
    limit: int | None = None,
    decode: str = "first",
    workers: int = 2,
    max_missing: float = 1.0,
    check_clips: bool = True,
) -> Checked:
    """Writes the candidates to ``out`` after all checks have passed; returns the results of the clips' checks.

    Raises RowError, and ClipsMissing if more than ``max_missing`` of the candidates have no clip.
    """
    known = reader.total(inputs, limit)  # first, so that a wrong path does not delete the manifest of an earlier run
    _require_one_set(inputs)
    for option, path in (("--out", out), ("--manifest", manifest)):
        if path.resolve() in (given.resolve() for given in inputs):
            raise RowError(f"{path}: is one of the inputs; {option} would replace it")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("")
    skipped, root = Skipped(manifest, max_bad_rate, "--max-bad-rate"), place(videos, inputs[0]).root
    rows = reader.read(inputs, videos, limit, pictures=False, require=lambda row: row.truth)
    bar = Progress(_candidates(rows, root, skipped, known), desc="reading", total=known, unit="row", leave=False)
    with whole(out) as file:
        total = candidates.write(file, bar, candidates.READ) + len(skipped.listed)
        skipped.check(total)
        checked = _check_clips(file, root, skipped, total, decode, workers, max_missing) if check_clips else Checked()
    return checked


def _require_one_set(inputs: Sequence[Path]) -> None:
    """Raises RowError if some parquet files have embedded pictures and others not: TwiFF's validation rows are beside those of
    training, in another form."""
    schemas = {path: pq.read_schema(path).names for path in inputs if path.suffix == ".parquet"}
    embedded = [str(path) for path, names in schemas.items() if reader.PICTURES & set(names)]
    if 0 < len(embedded) < len(inputs):
        raise RowError(
            f"{', '.join(embedded)}: has pictures embedded, unlike the other inputs; read validation rows by themselves"
        )


def _candidates(rows: Iterable[Row | BadRow], root: Path, skipped: Skipped, known: int | None) -> Iterator[Candidate]:
    """Yields the candidates of rows; lists the others. Raises RowError as soon as these are certainly too many, or, for JSON,
    whose number of rows is not known beforehand, at the end."""
    first: dict[str, tuple[str, Candidate]] = {}
    for row in rows:
        try:
            if isinstance(row, BadRow):
                raise RowError(row.reason)
            yield _of_its_own(candidates.candidate(row, root), first)
        except ValueError as error:  # RowError, or an impossible file name
            skipped.add(row.source, reason(error))
            if known is not None:
                skipped.check(known)


def _of_its_own(found: Candidate, first: dict[str, str]) -> Candidate:
    """Returns the candidate with a unique id, since ids may be those of videos. Raises RowError for a repeated candidate."""
    asked = hashlib.sha256(f"{found['video']}\0{found['question']}".encode()).hexdigest()[:12]
    for name in (found["id"], f"{found['id']}-{asked}"):
        earlier, source = first.setdefault(name, (asked, found["source"]))
        if source == found["source"]:
            return found | {"id": name}
        if earlier == asked:
            raise RowError(f"id is taken: {name!r} is that of {source}, which asks the same")
    raise RowError(f"id is taken: {found['id']!r}")


def _check_clips(
    file: Path, videos: Path, skipped: Skipped, total: int, decode: str, workers: int, max_missing: float
) -> Checked:
    """Removes the candidates of missing and bad clips from a file, in Arrow, so that millions of others need not become
    objects. Missing clips are found before any clip is decoded."""
    column = pq.read_table(file, columns=["video"])["video"]
    clips = [clip.as_py() for clip in column.unique()]
    looking = Progress(clips, desc="looking for clips", unit="clip", leave=False)
    gone = [clip for clip in looking if not os.path.isfile(videos / clip)]
    missing = pc.sum(pc.is_in(column, value_set=pa.array(gone, pa.string()))).as_py() or 0
    print(f"{len(column) - missing:,} of {len(column):,} rows have their clip")
    if missing > max_missing * len(column):
        raise ClipsMissing(len(column), missing, gone[:3])
    absent = set(gone)
    present, most_bad = [clip for clip in clips if clip not in absent], int(skipped.max_rate * total)
    checked = checking.check(present, len(present), videos, decode, workers, most_bad)
    lost = Skipped(skipped.manifest, 1.0)  # missing clips have a separate limit
    if checked.bad or gone:
        bad = pa.array([*checked.bad, *gone], pa.string())
        with whole(file) as kept, pq.ParquetWriter(kept, candidates.READ) as writer:
            for batch in pq.ParquetFile(file).iter_batches(candidates.ROWS_AT_ONCE):
                is_bad = pc.is_in(batch["video"], value_set=bad)
                for row in batch.select(["source", "video"]).filter(is_bad).to_pylist():
                    if reason := checked.bad.get(row["video"]):
                        skipped.add(row["source"], reason)
                    else:
                        lost.add(row["source"], f"video is missing: {row['video']}")
                writer.write_batch(batch.filter(pc.invert(is_bad)))
        skipped.check(total)
    return checked


def _folder(inputs: Sequence[Path]) -> Path:
    folders = {path.parent for path in inputs}
    if len(folders) > 1:
        raise RowError(f"the inputs lie in {len(folders)} folders; --videos has to say which one clips are relative to")
    return folders.pop()


def summary(out: Path, manifest: Path, checked: Checked) -> list[Table]:
    """Returns tables: the number of candidates, the reasons for omitted rows, and properties of the candidates."""
    table = pq.read_table(out, columns=["category", "image", "reasoning_image", "response"])
    silent = pc.sum(pc.equal(table["response"], "")).as_py() or 0
    bad = counts(manifest)
    shown = [
        _table(
            "rows",
            {"read": len(table) + bad.total(), "candidates": len(table), "left out": bad.total(), "without a response": silent},
        ),
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
