"""Finds clips and pictures: in a folder, by a template with the row's fields, or by a map."""

import csv
import json
import os
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from future_l1_verl.data.fields import Fields, Locate, mapping
from future_l1_verl.data.rows import RowError

_FIELD = re.compile(r"\{(\w+)")


@dataclass(frozen=True)
class Place:
    """``root`` is the folder that contains all clips; ``fields`` are the fields of a row that ``locate`` reads."""

    root: Path
    locate: Locate
    fields: frozenset[str] = frozenset()


def place(videos: str | Path | None, data: Path) -> Place:
    """Returns the place of the clips: ``videos`` is a folder, a file (a JSON object, or CSV with two columns: name or id, path)
    or a template such as ``clips/{id}/{stem}-{meta_data.start}.mp4``; by default the folder of the ``data``.

    A template has the row's fields, dots for entries in them, and ``stem`` and ``name`` of the clip's file. Paths are
    absolute, so that FFmpeg does not read a protocol into a file name. Raises RowError if ``videos`` is something else.
    """
    if videos is None:
        videos = data if data.is_dir() else data.parent
    text, path = str(videos), Path(os.path.abspath(videos))
    if path.is_dir():
        return Place(path, partial(_in_folder, path))
    if "{" in text:
        root = Path(os.path.abspath(text[: text.index("{")].rpartition("/")[0] or "."))
        return Place(root, partial(_by_template, text), frozenset(_FIELD.findall(text)) - {"stem", "name"})
    if path.is_file():
        return Place(path.parent, partial(_by_map, path, _map(path)))
    raise RowError(f"{videos}: is neither a folder nor a file that maps names to clips, nor a template with {{fields}}")


def _in_folder(root: Path, fields: Fields, *names: str) -> str:
    """Returns the first name that exists in the folder; a name may begin with the name of the folder itself."""
    paths = [os.path.join(root, name) for name in names]
    found = next(filter(os.path.exists, paths), None)
    if found is None:
        below = (os.path.join(root, *Path(name).parts[1:]) for name in names if Path(name).parts[:1] == (root.name,))
        found = next(filter(os.path.exists, below), paths[0])
    return str(Path(found))


def _by_map(file: Path, known: dict[str, str], fields: Fields, *names: str) -> str:
    keys = [
        *names,
        *(Path(name).name for name in names),
        *(Path(name).stem for name in names),
        *(str(fields[name]) for name in ("id",) if fields.get(name) is not None),
    ]
    if (found := next((known[key] for key in keys if key in known), None)) is None:
        raise RowError(f"video is not in the map of clips: {names[-1]} ({file})")
    return str(file.parent / found)


def _map(path: Path) -> dict[str, str]:
    try:
        if path.suffix.lower() == ".json":
            pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                pairs = [row for row in csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",") if row]
        if wrong := [pair for pair in pairs if len(pair) != 2 or not all(isinstance(text, str) for text in pair)]:
            raise ValueError(f"an entry is not a pair of texts: {wrong[0]!r:.80}")
    except (TypeError, ValueError, RecursionError, csv.Error) as error:
        raise RowError(f"{path}: is no map of clips, a JSON object or CSV of name and path: {error}") from error
    found = dict(pairs)
    if twice := [name for name, clip in pairs if found[name] != clip]:
        raise RowError(f"{path}: has two clips for one name: {twice[0]}")
    return found


class _Template(string.Formatter):
    """A formatter in which ``{a.b}`` is entry b of the field a, an object or an object as JSON."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        first, *rest = field_name.split(".")
        value = kwargs[first]
        for name in rest:
            value = mapping({first: value}, first)[name]
        if value is None:
            raise ValueError(f"{field_name} is null")
        return value, first


def _by_template(template: str, fields: Fields, *names: str) -> str:
    path = Path(names[-1])
    try:
        found = _Template().vformat(template, (), fields | {"stem": path.stem, "name": path.name})
    except (KeyError, ValueError) as error:
        raise RowError(f"the template of clips does not fit the row: {template} ({error!r})") from error
    return os.path.abspath(found)
