"""The progress of long work: a bar in a terminal, and a line now and then where the output is a pipe or a file."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

INTERVAL = 10.0  # seconds between two lines


class Progress(tqdm):
    """tqdm's bar. What reads lines, as grep does, would hold a bar back that is redrawn in its line: there it gets lines."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not sys.stderr.isatty():
            # One within another would move up and down between their lines; what is done within the interval says nothing.
            kwargs |= {"file": _Lines(sys.stderr), "position": 0, "leave": True}
            kwargs |= {"mininterval": INTERVAL, "maxinterval": INTERVAL, "delay": INTERVAL}
        super().__init__(*args, **kwargs)


class _Lines:
    """Writes what is drawn as lines of their own, and leaves out what only clears."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if drawn := text.strip("\r\n "):
            self._file.write(f"{drawn}\n")

    def flush(self) -> None:
        self._file.flush()
