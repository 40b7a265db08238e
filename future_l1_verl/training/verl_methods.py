"""Refuses, before a stage begins, a verl whose methods are not those that this package overrides (verl_methods.yaml)."""

from collections.abc import Iterator
from importlib import resources
from pkgutil import resolve_name

import yaml

from future_l1_verl.seams import Seam, different
from future_l1_verl.versions import UnsupportedVersion


def check_verl(stage: str) -> None:
    """Raises UnsupportedVersion if the installed verl has other methods than those that ``stage``, "sft" or "rl", overrides."""
    if differences := list(different(overridden(stage), "verl")):
        raise UnsupportedVersion(f"{'; '.join(differences)}; reinstall it unpatched")


def overridden(stage: str) -> Iterator[Seam]:
    """Yields the methods that a stage overrides, those of its engine among them."""
    table = yaml.safe_load((resources.files(__package__) / "verl_methods.yaml").read_text(encoding="utf-8"))
    for path, methods in (table["engine"] | table[stage]).items():
        owner = resolve_name(path)
        if metadata := getattr(owner, "__ray_metadata__", None):  # a Ray actor class; verl's own is the base of what it holds
            owner = metadata.modified_class.__base__
        for method in methods:
            name, _, parameters = method.rstrip(")").partition("(")
            yield owner, name, tuple(parameters.split(", "))
