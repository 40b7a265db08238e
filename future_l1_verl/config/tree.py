"""The config tree of a stage: its own keys with their meanings, and the tree with hydra overrides applied."""

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from future_l1_verl.wording import did_you_mean

GROUPS = {"sft": ("platform",), "rl": ("ablation", "pools", "platform")}
"""The config groups of a stage; one file of each is chosen."""

_LINE = re.compile(r"(?P<indent> *)(?P<name>[\w@]+):(?: (?P<value>.*?))?(?:  # (?P<text>.*))?")


class Key(NamedTuple):
    """A documented key of a tree: its path ``a.b.c``, its value as YAML, and its meaning; a section has no value."""

    path: str
    value: str
    text: str


def own_keys(stage: str) -> Iterator[Key]:
    """Yields, in order, the keys of ``config/STAGE/main.yaml`` with a comment above them or on the same line."""
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in (resources.files(f"future_l1_verl.config.{stage}") / "main.yaml").read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("# "):
            said.append(line.lstrip()[2:])
            continue
        if found := _LINE.fullmatch(line):
            indent = len(found["indent"])
            path = [*(each for each in path if each[0] < indent), (indent, found["name"])]
            text = " ".join(filter(None, [*said, found["text"]]))
            if text and path[0][1] != "hydra":
                yield Key(".".join(name for _, name in path), found["value"] or "", text)
        said = []


def choices(group: str, stage: str) -> dict[str, str]:
    """Returns the choices of a group, each with the first sentence of its file."""
    inside = f"future_l1_verl.config.{stage}" if group == "platform" else "future_l1_verl.config"
    found = {}
    for file in sorted((resources.files(inside) / group).iterdir(), key=lambda file: file.name):
        name, _, suffix = file.name.rpartition(".")
        if suffix == "yaml" and not name.startswith("_"):
            lines = file.read_text(encoding="utf-8").splitlines()
            said = [line[2:] for line in lines if line.startswith("# ") and "@package" not in line]
            found[name] = " ".join(said).split(". ")[0].rstrip(".")
    return found


def composed(stage: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the tree of a stage with overrides. Raises ValueError with one line saying what is wrong with them."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_module(f"future_l1_verl.config.{stage}", version_base=None):
        try:
            return compose("main", overrides=list(overrides))
        except MissingConfigException as error:
            wrong = next((each for each in overrides if each.split("=")[0] in GROUPS[stage]), None)
            if wrong is None:
                raise ValueError(_first_line(error)) from error
            group, _, name = wrong.partition("=")
            raise ValueError(f"there is no {group} {name!r}; choose one of {', '.join(choices(group, stage))}") from error
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(_told(error, overrides, OmegaConf.to_container(compose("main")), GROUPS[stage])) from error


def _told(error: Exception, overrides: Sequence[str], tree: dict, groups: Sequence[str]) -> str:
    """Returns what is wrong, with the most similar key if one is not known."""
    known = {*_paths(tree), *groups}
    for each in overrides:
        name, equals, _ = each.partition("=")
        if not equals and not each.startswith("~"):
            return f"{each!r} is not of the form KEY=VALUE"
        if re.fullmatch(r"[\w.]+", name) and name not in known:
            return f"there is no key {name}{did_you_mean(name, known, cutoff=0.7)}; +{each} would add it"
    return _first_line(error)


def _paths(node: dict, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
