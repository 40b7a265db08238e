"""``build``: writes the selected candidates as files of stage 1 and stage 2, with a dataset card."""

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from data_prep.curation import candidates, card, overlap
from data_prep.curation.candidates import Candidate, CandidateError
from data_prep.curation.overlap import WHOLE_STEM, Overlap, video_id
from data_prep.curation.training import GAINS, RL, SFT, response, rl_row, sft_row
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.skipped import Skipped, counts
from future_l1_verl.files import whole_folder
from future_l1_verl.progress import Progress
from future_l1_verl.tables import empty_table

LEFT_OUT = "left_out.jsonl"


def run(args: argparse.Namespace) -> None:
    """Runs ``build``. Raises FileExistsError if ``--out`` is not empty, CandidateError if fewer than two videos are left, and
    SelectionError if benchmarks cannot be compared with or a file name has no video id."""
    pattern = overlap.pattern(args)
    video_of = os.path.normpath if args.video_id == WHOLE_STEM else partial(video_id, pattern=pattern)
    overlaps = partial(_overlaps, args) if args.benchmark else None
    build(args.selected, args.videos, args.out, args.val_fraction, args.seed, args.name, args.rl_only, video_of, overlaps)
    table = empty_table("file", "rows")
    for path in sorted(args.out.glob("*.parquet")):
        table.add_row(path.name, f"{pq.ParquetFile(path).metadata.num_rows:,}")
    for reason, count in counts(args.out / LEFT_OUT).most_common():
        table.add_row(f"left out: {reason}", f"{count:,}")
    Console().print(table)
    if args.rl_only and not args.benchmark:
        print("no --benchmark was given: nothing is kept clear of one")
    if not args.rl_only:
        print(f"{args.out}: README.md describes it; what was left out is listed in {LEFT_OUT}")


def build(
    selected: Path,
    videos: Path,
    out: Path,
    val_fraction: float,
    seed: int,
    name: str,
    rl_only: bool = False,
    video_of: Callable[[str], str] = os.path.normpath,
    overlaps: Callable[[Sequence[Candidate]], Sequence[Overlap | None]] | None = None,
) -> None:
    """Writes ``{sft,rl}_{train,val}.parquet``, ``left_out.jsonl`` and a card to the folder ``out``, atomically.

    Rows keep the order of ``selected``; rows that cannot be put into the paper's shape are left out of both stages, and so are
    rows with ``overlaps``. With ``rl_only`` no response is needed, and only the files of stage 2 are written. ``video_of``
    maps a clip's path to its video; all clips of a video are in the same part.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"--val-fraction lies between 0 and 1, not at {val_fraction}")
    with whole_folder(out) as folder:
        (folder / LEFT_OUT).touch()
        skipped = Skipped(folder / LEFT_OUT, max_rate=1.0)
        usable = list(candidates.read(selected)) if rl_only else _usable(selected, skipped)
        if overlaps is not None:
            usable = _clear(usable, overlaps, skipped)
        of = {candidate["video"]: video_of(candidate["video"]) for candidate in usable}
        if len(set(of.values())) < 2:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in counts(skipped.manifest).most_common())
            raise CandidateError(
                f"{selected}: {len(usable)} of {candidates.count(selected)} candidates can be trained on, and training and "
                f"validation need a video each: {reasons or 'nothing is wrong with any'}"
            )
        held_out = validation_videos(of.values(), val_fraction, seed)
        for part in ("train", "val"):
            rows = [
                (candidate, os.path.relpath(videos.resolve() / candidate["video"], out.resolve()))
                for candidate in usable
                if (of[candidate["video"]] in held_out) == (part == "val")
            ]
            candidates.write(folder / f"rl_{part}.parquet", (rl_row(*row, name) for row in rows), RL)
            if not rl_only:
                candidates.write(folder / f"sft_{part}.parquet", (sft_row(*row) for row in rows), SFT)
        if not rl_only:
            card.write(folder, name, dict(counts(folder / LEFT_OUT)))


def _usable(selected: Path, skipped: Skipped) -> list[Candidate]:
    """Returns the candidates with a response of the paper's shape; lists the others."""
    columns = [*candidates.SCHEMA.names, *GAINS]
    total = candidates.count(selected)
    missing = [column for column in GAINS if column not in pq.read_schema(selected).names]
    if missing:
        raise CandidateError(f"{selected}: lacks {', '.join(missing)}; `select` of data_prep.curation writes such files")
    usable = []
    for candidate in Progress(candidates.read(selected, columns), total=total, desc="building", unit="row", leave=False):
        try:
            if candidate["gain"] is None:
                raise CandidateError(f"{selected}: {candidate['source']} has no gain; `select` writes files with them")
            response(candidate)
        except RowError as error:
            skipped.add(candidate["source"], str(error))
        else:
            usable.append(candidate)
    return usable


def _clear(
    usable: Sequence[Candidate], overlaps: Callable[[Sequence[Candidate]], Sequence[Overlap | None]], skipped: Skipped
) -> list[Candidate]:
    """Returns the candidates that overlap no benchmark; lists the others."""
    clear = []
    for candidate, found in zip(usable, overlaps(usable), strict=True):
        if found is None:
            clear.append(candidate)
        else:
            skipped.add(candidate["source"], f"not clear of the benchmarks ({found.reason}): {found.by}")
    return clear


def _overlaps(args: argparse.Namespace, usable: Sequence[Candidate]) -> list[Overlap | None]:
    """Returns the overlap of each candidate; frames are compared last. Raises SelectionError or CandidateError."""
    benchmarks = overlap.benchmarks(args)
    found = [benchmarks.find(candidate["video"], candidate["question"], args.overlap) for candidate in usable]
    with overlap.frames(args, benchmarks) as frames:
        if frames is not None:
            rest = [index for index, item in enumerate(found) if item is None]
            seen = frames.find([args.videos / usable[index]["video"] for index in rest])
            for index, item in zip(rest, seen, strict=True):
                found[index] = item
    return found


def validation_videos(videos: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Returns ``fraction`` of the videos, at least one and not all; order and repeats of ``videos`` do not matter."""
    ranked = sorted(set(videos), key=lambda video: hashlib.sha256(f"{seed}\0{video}".encode()).digest())
    return set(ranked[: min(max(1, round(fraction * len(ranked))), len(ranked) - 1)])
