"""Converts rows of other data sets to ours: every module in this folder is a format.

A format has ``KEYS``, groups of fields that identify a row (all fields of one group are present); ``FIELDS``, all fields that
it reads; and ``parse(fields, locate)``, which returns the arguments of `Row` or raises RowError. If several formats match a
row, the one with the largest group is used.
"""

import pkgutil
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from future_l1_verl.data.fields import Locate, require_no_frames
from future_l1_verl.data.rows import Picture, Row, RowError

FORMATS: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}
FIELDS = frozenset(field for module in FORMATS.values() for field in module.FIELDS)


def known(names: Iterable[str]) -> bool:
    """Returns whether rows with fields of these names can match a format."""
    present = set(names)
    return any(keys <= present for module in FORMATS.values() for keys in module.KEYS)


def unknown(names: Iterable[object]) -> RowError:
    """Returns the error for fields that no format knows."""
    return RowError(f"unknown form: no format of {', '.join(FORMATS)} has the fields {', '.join(map(str, names))}")


@lru_cache
def format_of(present: frozenset[str]) -> str:
    """Returns the name of the format of a row in which these fields have a value (cached: a file has few kinds of rows).
    Raises RowError if no format, or more than one, matches."""
    sizes = {name: max((len(keys) for keys in module.KEYS if keys <= present), default=0) for name, module in FORMATS.items()}
    best = max(sizes.values())
    found = [name for name, size in sizes.items() if size == best]
    if not best:
        raise unknown(sorted(map(str, present)))
    if len(found) > 1:
        raise RowError(f"ambiguous form: {' and '.join(found)} both know the fields {', '.join(sorted(map(str, present)))}")
    return found[0]


def parse(fields: Any, source: str, number: int, locate: Locate) -> Row:
    """Returns a row of any format. Raises RowError, without the source."""
    if not isinstance(fields, dict):
        raise RowError(f"row is not an object with fields: {fields!r:.80}")
    name = format_of(frozenset(field for field, value in fields.items() if value is not None))
    found = FORMATS[name].parse(fields, locate)
    if not any(isinstance(item, int | Picture) for item in found.get("observed", ())):
        require_no_frames(fields)
    return Row(**found | {"source": source, "number": number, "data_source": found.get("data_source") or name})
