"""Keeps a run's last checkpoint complete while the next one is written, even if that fails."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from future_l1_verl.files import whole


class CheckpointFailed(RuntimeError):
    """A checkpoint could not be written; the previous one still exists."""


@contextmanager
def saying_where(folder: Path) -> Iterator[None]:
    """Raises CheckpointFailed for any error in the block, with the free disk space: torch's error for a file that it could not
    write does not say that the disk was full."""
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(folder.parent).free / 2**20
        raise CheckpointFailed(
            f"{folder} could not be written, {free:,.0f} MiB are free there; checkpoints before it are as they were: {error}"
        ) from error


@contextmanager
def open_whole(path: str, mode: str) -> Iterator[IO[Any]]:
    """Opens a file for writing that replaces the one at ``path`` only when it is closed."""
    with whole(Path(path)) as temporary, temporary.open(mode) as file:
        yield file


def delete_older(saved: list[Path], keep: int | None) -> None:
    """Deletes folders of checkpoints, oldest first, and their entries, until ``keep`` are left; None keeps all."""
    while keep is not None and len(saved) > keep:
        shutil.rmtree(saved.pop(0))
