"""The rule of visual gain (paper section 3): selects candidates that a model answers better with their future frames."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.curation.scores import CONDITIONS

AT_ONCE = 512


class SelectionError(ValueError):
    """No selection is possible; the message names the file or the setting, and the fix."""


@dataclass(frozen=True)
class Scored:
    """Candidates with a verdict on every rollout, in order of id, so that nothing depends on the order of a file.

    ``row`` in the file of candidates and correct rollouts of both conditions, ``[n]``; ``rollouts`` for each condition.
    """

    row: np.ndarray
    base: np.ndarray
    hint: np.ndarray
    rollouts: int

    @property
    def gain(self) -> np.ndarray:
        return self.hint - self.base


@dataclass(frozen=True)
class Rule:
    """Keeps ``base <= max_base`` and ``hint - base >= min_gain`` correct rollouts, then the ``top`` largest gains."""

    top: int = 50_000
    max_base: int = 6
    min_gain: int = 2

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("max_base", 0)):
            if getattr(self, name) < least:
                raise SelectionError(f"{name} must be at least {least}, not {getattr(self, name)}")

    def ranking(self, scored: Scored) -> np.ndarray:
        """Returns the indices of all candidates that pass, best first. Raises SelectionError if there are too few rollouts.

        Of equal gains the one with fewer correct base rollouts comes first: like ``max_base``, this prefers questions that the
        observed frames do not answer. Remaining ties stay in order of id.
        """
        if self.min_gain > scored.rollouts:
            raise SelectionError(f"min_gain {self.min_gain} cannot be reached with {scored.rollouts} rollouts; lower it")
        passing = np.flatnonzero((scored.base <= self.max_base) & (scored.gain >= self.min_gain))
        return passing[np.lexsort((scored.base[passing], -scored.gain[passing]))]


def join(ids: pa.ChunkedArray, counts: pa.Table, files: tuple[Path, Path]) -> tuple[Scored, dict[str, str]]:
    """Returns the ``counts`` (``id, base_correct, hint_correct, rollouts``) of candidates ``ids``, and the incomplete ones.

    A candidate without all verdicts is incomplete; it does not count as wrong, but is left out and named with the conditions
    that lack some. ``files`` names the sources of both. Raises SelectionError if a candidate occurs twice in either,
    if counts belong to no candidate, if none is complete, or if numbers of rollouts differ.
    """
    for file, column in zip(files, (ids, counts["id"]), strict=True):
        if pc.count_distinct(column).as_py() < len(column):
            seen = pc.value_counts(column)
            twice = seen.filter(pc.greater(seen.field("counts"), 1)).field("values")
            raise SelectionError(f"{file}: id: {len(twice)} occur more than once, the first is {twice[0].as_py()!r}")
    counts = counts.sort_by("id")
    rows = pc.index_in(counts["id"], value_set=ids)
    if rows.null_count:
        strangers = counts["id"].filter(pc.is_null(rows))
        raise SelectionError(
            f"{files[1]}: id: {len(strangers)} are not among the candidates of {files[0]}, the first is "
            f"{strangers[0].as_py()!r}; give the file that was scored"
        )
    lacking = {name: pc.is_null(counts[f"{name}_correct"]).to_numpy() for name in CONDITIONS}
    incomplete = np.logical_or.reduce(list(lacking.values()))
    left_out = {
        counts["id"][int(index)].as_py(): ", ".join(name for name in CONDITIONS if lacking[name][index])
        for index in np.flatnonzero(incomplete)
    }
    kept = counts.filter(pa.array(~incomplete))
    several = pc.unique(kept["rollouts"]).to_pylist()
    if len(several) != 1:
        problem = f"there are {sorted(several)} rollouts, which do not compare" if several else "none has all its verdicts"
        raise SelectionError(f"{files[1]}: of the {len(counts)} candidates {problem}; score them again, all alike")
    base, hint = (kept[f"{name}_correct"].to_numpy() for name in CONDITIONS)
    return Scored(rows.to_numpy()[~incomplete], base, hint, several[0]), left_out


def first_kept(order: np.ndarray, wanted: int, kept: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns the first ``wanted`` of ``order`` that are ``kept`` (bools for a part of it); checks no more than needed."""
    found, start = order[:0], 0
    while len(found) < wanted and start < len(order):
        part = order[start : start + min(wanted - len(found), AT_ONCE)]
        found = np.concatenate([found, part[kept(part)]])
        start += len(part)
    return found
