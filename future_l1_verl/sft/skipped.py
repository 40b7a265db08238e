"""Rows that cannot be used: listed in a manifest, counted, and the end of the run where there are too many."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from future_l1_verl.data.rows import Row, RowError
from future_l1_verl.sft.conversations import problems

RATE_FROM = 100  # rows seen in training before which there is no rate


class Skipped:
    """A manifest with a JSON line ``{source, reason}`` per skipped row. Each process appends whole lines, so several may.

    ``max_rate`` is the share of rows that may be skipped.
    """

    def __init__(self, manifest: str | Path, max_rate: float) -> None:
        self.manifest, self.max_rate = Path(manifest), max_rate
        self.seen, self.skipped = 0, 0
        self.listed: set[str] = set()

    def at_start(self, total: int, problems: dict[str, str]) -> None:
        """Lists rows by source. Raises RowError with the first 20 if they are more than ``max_rate`` of ``total``."""
        for source, reason in problems.items():
            self._list(source, reason)
        if len(problems) > self.max_rate * total:
            shown = "\n".join(f"{source}: {reason}" for source, reason in list(problems.items())[:20])
            more = f"\n... and {len(problems) - 20} more, all in {self.manifest}" if len(problems) > 20 else ""
            raise RowError(
                f"{len(problems)} of {total} rows cannot be used, more than data.max_bad_rate={self.max_rate}:\n{shown}{more}"
            )

    def use(self) -> None:
        """Counts a row that was seen and used."""
        self.seen += 1

    def skip(self, source: str, reason: str) -> None:
        """Lists a row that was seen and cannot be used. Raises RowError once too many of those seen here cannot."""
        self.seen, self.skipped = self.seen + 1, self.skipped + 1
        self._list(source, reason)
        if self.seen >= RATE_FROM and self.skipped > self.max_rate * self.seen:
            raise RowError(
                f"{self.skipped} of {self.seen} rows cannot be used, more than data.max_bad_rate={self.max_rate}; they are "
                f"listed in {self.manifest}; the last: {source}: {reason}"
            )

    def _list(self, source: str, reason: str) -> None:
        if source not in self.listed:
            self.listed.add(source)
            self.manifest.parent.mkdir(parents=True, exist_ok=True)
            with self.manifest.open("a") as file:
                file.write(json.dumps({"source": source, "reason": reason}) + "\n")


def counts(manifest: str | Path) -> Counter[str]:
    """How many different rows a manifest lists, by reason without its figures and names; empty if there is no manifest."""
    path = Path(manifest)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return Counter({row["source"]: row["reason"].split(":")[0] for row in rows}.values())


def usable(rows: list[Row], skipped: Skipped) -> list[Row]:
    """The rows with which nothing is wrong that can be seen without decoding; the others go to the manifest."""
    found = {}
    for row in tqdm(rows, desc="checking rows", unit="row", leave=False):
        problem = next(problems(row), None)
        if problem is not None:
            found[row["source"]] = problem
    skipped.at_start(len(rows), found)
    return [row for row in rows if row["source"] not in found]
