"""Lists rows that cannot be used in a manifest, counts them, and ends the run if there are too many."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from future_l1_verl.data.rows import BadRow, Row, RowError
from future_l1_verl.progress import Progress

RATE_FROM = 100  # in training the rate is defined from this many rows on
SHOWN = 20  # rows that an error names


class Skipped:
    """A manifest with a JSON line ``{source, reason}`` per skipped row. Several processes may append to it.

    ``max_rate`` is the share of rows that may be skipped, and ``setting`` the name of that setting in error messages.
    ``listed`` has the reasons by source.
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

    def usable(self, rows: Iterable[Row | BadRow], total: int | None = None) -> list[Row]:
        """Returns the rows that can be used and lists the others. Raises RowError like `check`."""
        found = self.readable(rows, total)
        self.check(len(found) + len(self.listed))
        return found

    def readable(self, rows: Iterable[Row | BadRow], total: int | None = None) -> list[Row]:
        """Returns the rows that can be read, however few, and lists the others."""
        found = []
        for row in Progress(rows, desc="reading rows", total=total, unit="row", leave=False):
            if isinstance(row, Row):
                found.append(row)
            else:
                self.add(*row)
        return found

    def skip(self, source: str, reason: str) -> None:
        """Lists a row that was seen and cannot be used. Raises RowError once too many of the rows seen here cannot."""
        self.seen, self.skipped = self.seen + 1, self.skipped + 1
        self.add(source, reason)
        if self.seen >= RATE_FROM and self.skipped > self.max_rate * self.seen:
            raise RowError(
                f"{self.skipped} of {self.seen} rows cannot be used, more than {self.setting}={self.max_rate}; they are "
                f"listed in {self.manifest}; the last: {source}: {reason}"
            )


class Usable(ABC):
    """A dataset of rows that `item` turns into something, for training."""

    rows: Sequence[Row]
    skipped: Skipped

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns the item of a row, or of the next one that can be used; rows in between are listed with their errors, of any
        kind: a single row must not end the training.

        Raises RowError once too many of the rows seen here cannot be used.
        """
        for offset in range(len(self.rows)):
            row = self.rows[(index + offset) % len(self.rows)]
            try:
                made = self.item(row)
            except Exception as error:
                self.skipped.skip(row.source, reason(error))
            else:
                self.skipped.seen += 1
                return made
        raise RowError(f"none of {len(self.rows)} rows can be used; they are listed in {self.skipped.manifest}")

    @abstractmethod
    def item(self, row: Row) -> dict[str, Any]:
        """Returns what a training takes of a row. Raises RowError, or another error, if that cannot be made."""


def reason(error: Exception) -> str:
    """Returns why a row cannot be used, for an error of any kind."""
    return str(error) if isinstance(error, RowError) else f"row cannot be prepared: {type(error).__name__}: {error}"


def counts(manifest: str | Path) -> Counter[str]:
    """Returns the number of different rows in a manifest, by reason without its details; empty if there is no manifest."""
    path = Path(manifest)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return Counter({row["source"]: row["reason"].split(":")[0] for row in rows}.values())
