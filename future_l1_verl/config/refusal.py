"""Bad input ends a command with a message, not with a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusing(command: str) -> Iterator[None]:
    """Ends the process with status 2 and a line on the standard error if the block raises ValueError or OSError; for checks of
    what a user gave, before any work is done."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
