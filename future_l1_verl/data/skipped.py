"""Rows that cannot be used: listed in a manifest, counted, and the end of the run where there are too many."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from future_l1_verl.data.rows import RowError

RATE_FROM = 100  # rows seen in training before which there is no rate
SHOWN = 20  # rows that an error names


class Skipped:
    """A manifest with a JSON line ``{source, reason}`` per skipped row. Each process appends whole lines, so several may.

    ``max_rate`` is the share of rows that may be skipped, and ``setting`` what whoever sets it calls it. ``listed`` are the
    reasons by source.
    """

    def __init__(self, manifest: str | Path, max_rate: float, setting: str = "data.max_bad_rate") -> None:
        self.manifest, self.max_rate, self.setting = Path(manifest), max_rate, setting
        self.seen, self.skipped = 0, 0
        self.listed: dict[str, str] = {}

    def add(self, source: str, reason: str) -> None:
        """Lists a row, once."""
        if source not in self.listed:
            self.listed[source] = reason
            self.manifest.parent.mkdir(parents=True, exist_ok=True)
            with self.manifest.open("a") as file:
                file.write(json.dumps({"source": source, "reason": reason}) + "\n")

    def check(self, total: int) -> None:
        """Raises RowError with the first 20 if more than ``max_rate`` of ``total`` rows are listed."""
        if len(self.listed) > self.max_rate * total:
            shown = "\n".join(f"{source}: {reason}" for source, reason in list(self.listed.items())[:SHOWN])
            more = f"\n... and {len(self.listed) - SHOWN} more, all in {self.manifest}" if len(self.listed) > SHOWN else ""
            raise RowError(
                f"{len(self.listed)} of {total} rows cannot be used, more than {self.setting}={self.max_rate}:\n{shown}{more}"
            )

    def use(self) -> None:
        """Counts a row that was seen and used."""
        self.seen += 1

    def skip(self, source: str, reason: str) -> None:
        """Lists a row that was seen and cannot be used. Raises RowError once too many of those seen here cannot."""
        self.seen, self.skipped = self.seen + 1, self.skipped + 1
        self.add(source, reason)
        if self.seen >= RATE_FROM and self.skipped > self.max_rate * self.seen:
            raise RowError(
                f"{self.skipped} of {self.seen} rows cannot be used, more than {self.setting}={self.max_rate}; they are "
                f"listed in {self.manifest}; the last: {source}: {reason}"
            )


def counts(manifest: str | Path) -> Counter[str]:
    """How many different rows a manifest lists, by reason without its figures and names; empty if there is no manifest."""
    path = Path(manifest)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return Counter({row["source"]: row["reason"].split(":")[0] for row in rows}.values())
