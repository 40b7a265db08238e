"""The composition of a selection: shares by category with gain, base accuracy and number of future frames."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from rich.table import Table

DIMENSIONS = ("gain", "base_correct", "future_frames")


def stratify(properties: pd.DataFrame, groups: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """Returns for each of `DIMENSIONS` a row per category and value, with the counts of each group (indices of rows).

    ``properties`` has a column ``category`` and one for each dimension; a row has a column for each group.
    """
    tables = {}
    for dimension in DIMENSIONS:
        keys = ["category", dimension]
        counts = {name: properties.iloc[rows].groupby(keys, observed=True).size() for name, rows in groups.items()}
        tables[dimension] = pd.DataFrame(counts).fillna(0).astype(int).sort_index().reset_index()
    return tables


def as_records(tables: dict[str, pd.DataFrame]) -> dict[str, list[dict[str, object]]]:
    """Returns the rows for JSON, with a ``share`` of each group beside its count."""
    return {
        dimension: [
            {key: row[key] for key in ("category", dimension)}
            | {name: {"count": row[name], "share": row[name] / max(total, 1)} for name, total in _totals(table)}
            for row in table.to_dict("records")
        ]
        for dimension, table in tables.items()
    }


def as_table(dimension: str, table: pd.DataFrame) -> Table:
    """Returns a table for the terminal: the size of each group, and the shares."""
    shown = Table("category", dimension.replace("_", " "), title=f"category x {dimension.replace('_', ' ')}")
    totals = dict(_totals(table))
    for name, total in totals.items():
        shown.add_column(f"{name}\n{total:,}", justify="right")
    for row in table.to_dict("records"):
        shares = [f"{row[name] / max(total, 1):.1%}" for name, total in totals.items()]
        shown.add_row(row["category"] or "(none)", str(row[dimension]), *shares)
    return shown


def _totals(table: pd.DataFrame) -> Iterator[tuple[str, int]]:
    """Yields each group and its size."""
    yield from ((name, int(table[name].sum())) for name in table.columns[2:])
