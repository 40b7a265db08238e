"""How rows of foreign data sets become ours: one file a format, found by being in this folder.

A format has ``KEYS``, groups of fields by which a row is known (all fields of one group are there), ``FIELDS``, all that it
reads, and ``parse(fields, locate)``, which returns the arguments of `Row` or raises RowError. Of several formats that know a
row the one with the larger group takes it.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from future_l1_verl.data.fields import Fields, Locate
from future_l1_verl.data.rows import Row, RowError

FORMATS: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}
FIELDS = frozenset(field for module in FORMATS.values() for field in module.FIELDS)


def format_of(fields: Fields) -> str:
    """The name of the format that a row has. Raises RowError if no format, or more than one, knows it."""
    present = {name for name, value in fields.items() if value is not None}
    sizes = {name: max((len(keys) for keys in module.KEYS if keys <= present), default=0) for name, module in FORMATS.items()}
    best = max(sizes.values())
    found = [name for name, size in sizes.items() if size == best]
    if not best:
        raise RowError(f"unknown form: no format of {', '.join(FORMATS)} has the fields {', '.join(map(str, fields))}")
    if len(found) > 1:
        raise RowError(f"ambiguous form: {' and '.join(found)} both know the fields {', '.join(map(str, fields))}")
    return found[0]


def parse(fields: Any, source: str, number: int, locate: Locate) -> Row:
    """A row of any format. Raises RowError, without the source."""
    if not isinstance(fields, dict):
        raise RowError(f"row is not an object with fields: {fields!r:.80}")
    name = format_of(fields)
    found = FORMATS[name].parse(fields, locate)
    return Row(**found | {"source": source, "number": number, "data_source": found.get("data_source") or name})
