"""Writes files and folders atomically, and never over what is there by mistake."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, with its suffix; at the end of the block the file is renamed to ``path``.

    If the process dies in the block, ``path`` is unchanged. Several processes may write the same path; the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path``, which is renamed to ``path`` at the end of the block, or deleted if it raises.

    Raises what `require_new` raises.
    """
    require_new(path)
    temporary = path.with_name(f"{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raises FileExistsError unless ``folder`` is empty or does not exist."""
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new or an empty folder")


def as_json(content: Any) -> str:
    """Returns the text of a JSON file."""
    return json.dumps(content, indent=1) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    with whole(path) as temporary:
        temporary.write_text(as_json(content))


def keep_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of work that is done in parts, or compares them with those that it was begun with.

    Raises ValueError naming those that differ.
    """
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        before = json.loads(path.read_text())
        changed = sorted(name for name in settings.keys() | before.keys() if settings.get(name) != before.get(name))
        if changed:
            raise ValueError(f"{path.parent}: was begun with other {', '.join(changed)}; use the same, or another folder")
    else:
        write_json(path, settings)
