"""Tables of figures: for a terminal, taken for 80 columns wide where the output is a pipe or a file, and in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

NAMES = ("", "split", "score", "file")
"""Headers of columns that hold names, which are aligned left; figures are aligned right."""


def empty_table(*columns: str, title: str | None = None, **more: Any) -> Table:
    """Returns a table without rows; ``more`` are arguments of rich's."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, **more)
    for column in columns:
        table.add_column(column, justify="left" if column in NAMES else "right")
    return table


def markdown(*columns: str, rows: Iterable[Sequence[str | int]]) -> str:
    """Returns a table in Markdown, with a newline at its end."""
    cells = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "".join("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |\n" for row in cells)
