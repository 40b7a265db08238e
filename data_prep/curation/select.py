"""The subcommand ``select``: applies the rule, removes overlaps with benchmarks, and draws a random control."""

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from data_prep.curation import candidates, overlap, strata
from data_prep.curation.overlap import Frames, Overlap
from data_prep.curation.pool import Pool, read_counts, read_pool, write_members
from data_prep.curation.selection import Rule, Scored, SelectionError, first_kept, join
from future_l1_verl.files import require_new, write_json
from future_l1_verl.progress import Progress

REMOVED = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "reason", "by")])


def run(args: argparse.Namespace) -> None:
    """Writes ``selected.parquet``, ``control.parquet``, ``removed.parquet`` and ``report.json``, and prints the report.

    Selected candidates are in rank order, the control in the order drawn; as in the paper it is drawn from the whole pool, so
    it may include selected ones. ``removed`` lists, with the reason, incomplete candidates, those with a benchmark's video or
    question, and those removed by their frames, which are compared only when needed. Raises SelectionError, CandidateError,
    ScoresError or FileExistsError before anything is written.
    """
    rule = Rule(args.top, args.max_base, args.min_gain)
    require_new(args.out)
    benchmarks = overlap.benchmarks(args)
    find = partial(benchmarks.find, ways=args.overlap) if args.benchmark else None
    pool = read_pool(args.candidates, find)
    scored, incomplete = join(pool.ids, read_counts(args.scores), (args.candidates, args.scores))
    groups = {"pool": np.arange(len(scored.row)), "passing": rule.ranking(scored)}
    most = min(rule.top, len(groups["passing"])) * (1 + args.control)
    with overlap.frames(args, benchmarks) as frames, Progress(total=most, desc="choosing", unit="candidate") as bar:
        clear = _Clear(pool, scored, args.videos, frames, bar)
        groups["selected"] = first_kept(groups["passing"], rule.top, clear)
        if args.control:
            drawn = np.random.default_rng(args.seed).permutation(len(scored.row))
            groups["control"] = first_kept(drawn, len(groups["selected"]), clear)
    if not len(groups["selected"]):
        raise SelectionError(
            f"{args.scores}: no candidate is left: {len(groups['passing'])} of {len(scored.row)} pass the rule (the largest "
            f"gain is {scored.gain.max()}), none of them clear of the benchmarks; lower --min-gain or compare less (--overlap)"
        )
    lower = sum(position not in clear.found for position in groups["passing"].tolist()) - len(groups["selected"])
    removed = _removed(pool, scored, clear.found, incomplete)
    for name in ("selected", "control"):
        if name in groups:
            write_members(args.out / f"{name}.parquet", args.candidates, scored, groups[name])
    candidates.write(args.out / "removed.parquet", removed, REMOVED)
    tables = strata.stratify(pool.properties(scored), groups)
    settings = vars(args) | {"scores": args.scores.resolve()}  # `recheck` reads it
    report = {
        "settings": {name: str(value) for name, value in settings.items() if not callable(value)},
        "candidates": len(pool.ids),
        "benchmark_items": benchmarks.items,
        "unscored": len(pool.ids) - len(scored.row) - len(incomplete),
        "incomplete": len(incomplete),
        **{name: len(members) for name, members in groups.items()},
        "passing_below_top": lower,
        "removed": _reasons(removed),
        "benchmark_items_without_frames_to_compare": [] if frames is None else frames.flat,
        "strata": strata.as_records(tables),
    }
    write_json(args.out / "report.json", report)
    console = Console()
    for dimension, table in tables.items():
        console.print(strata.as_table(dimension, table))
    console.print(_summary(report, bool(args.benchmark)))


class _Clear:
    """Checks that candidates overlap no benchmark; ``found`` has by index those that do."""

    def __init__(self, pool: Pool, scored: Scored, folder: Path | None, frames: Frames | None, bar: Progress) -> None:
        rows = enumerate(scored.row.tolist())
        self.found = {index: pool.overlaps[row] for index, row in rows if row in pool.overlaps}
        self._frames, self._folder = frames, folder
        self._videos, self._row, self._bar = pool.videos, scored.row, bar

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        if self._frames is not None:
            unknown = [index for index in indices.tolist() if index not in self.found]
            videos = [self._folder / self._videos[int(self._row[index])].as_py() for index in unknown]
            overlaps = zip(unknown, self._frames.find(videos), strict=True)
            self.found |= {index: found for index, found in overlaps if found is not None}
        clear = np.array([index not in self.found for index in indices.tolist()], dtype=bool)
        self._bar.update(int(clear.sum()))
        return clear


def _removed(pool: Pool, scored: Scored, found: dict[int, Overlap], incomplete: dict[str, str]) -> list[dict[str, str]]:
    """Returns rows of `REMOVED`, by reason and id."""
    overlaps = ((pool.ids[int(scored.row[index])].as_py(), *item) for index, item in found.items())
    lacking = ((name, "incomplete", conditions) for name, conditions in incomplete.items())
    rows = [dict(zip(REMOVED.names, row, strict=True)) for row in (*overlaps, *lacking)]
    return sorted(rows, key=lambda row: (row["reason"], row["id"]))


def _reasons(removed: list[dict[str, str]]) -> dict[str, dict[str, object]]:
    """Returns the count for each reason, and the item that removed most: a benchmark's question may be a common one."""
    found: dict[str, Counter[str]] = {}
    for row in removed:
        found.setdefault(row["reason"], Counter())[row["by"]] += 1
    return {reason: {"count": counts.total(), "most_by": dict(counts.most_common(1))} for reason, counts in found.items()}


def _summary(report: dict, compared: bool) -> Table:
    table = Table(title=None if compared else "no --benchmark was given: nothing is kept clear of one", show_header=False)
    for name in ("candidates", "unscored", "incomplete", "pool", "passing", "selected", "passing_below_top", "control"):
        if name in report:
            table.add_row(name.replace("_", " "), f"{report[name]:,}")
    for reason, found in report["removed"].items():
        by, most = next(iter(found["most_by"].items()))
        table.add_row(f"removed: {reason}", f"{found['count']:,} ({most:,} by {by})")
    return table
