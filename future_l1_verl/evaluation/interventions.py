"""Interventions on the latents of a run that was left alone, by what its answers did: which vectors go where."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from dataclasses import dataclass, field

import torch

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.runs import Record, Run, RunError
from future_l1_verl.latents.interventions import Intervention

KINDS = ("swap", "noise", "zero", "drop", "shuffle", "freeze")

# What may differ between a run and the one that it intervenes on.
ITS_OWN = ("intervene", "intact", "save_latents")


@dataclass(frozen=True)
class Interventions:
    """``swap``: latents of another answer, with as many latents in each span if there is one, else with as many in all or more,
    else any. ``shuffle``: the answer's own, in another order. The others are those of `latents.interventions`.

    An answer that had no latents has none to be replaced.
    """

    kind: str
    intact: Run
    seed: int = 0
    _records: dict[int, Record] = field(init=False, repr=False)
    _shapes: dict[tuple[int, ...], list[Record]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"--intervene is one of {', '.join(KINDS)}, not {self.kind!r}")
        shapes = defaultdict(list)
        for record in self.intact.records:
            if record.spans:
                shapes[tuple(record.spans)].append(record)
        object.__setattr__(self, "_records", {record.row: record for record in self.intact.records})
        object.__setattr__(self, "_shapes", dict(shapes))

    def of(self, row: int) -> tuple[Intervention | None, int | None]:
        """What is done to the answer to question ``row``, and the row of the donor if there is one. Raises RunError if latents
        that are needed were not kept."""
        record = self._records[row]
        if not record.spans:
            return None, None
        draw = random.Random(hashlib.sha256(f"{self.seed}\0{row}".encode()).digest())
        if self.kind == "swap":
            donor = draw.choice(self._donors(record))
            return Intervention("given", runs.latents(self.intact.folder, donor.row)), donor.row
        if self.kind == "shuffle":
            latents = runs.latents(self.intact.folder, row)
            order = list(range(len(latents)))
            draw.shuffle(order)
            return Intervention("given", latents[torch.tensor(order)]), None
        return Intervention(self.kind, seed=draw.randrange(2**31)), None

    def _donors(self, record: Record) -> list[Record]:
        """Other questions' answers, those with the very same truth left out if any are left."""
        wanted = tuple(record.spans)
        everyone = [(shape, donor) for shape, donors in self._shapes.items() for donor in donors if donor.row != record.row]
        for fits in (lambda shape: shape == wanted, lambda shape: sum(shape) >= sum(wanted), lambda _: True):
            if found := [donor for shape, donor in everyone if fits(shape)]:
                return [donor for donor in found if donor.truth != record.truth] or found
        raise RunError(f"{self.intact.folder}: no other answer than that of row {record.row} has latents to swap in")


def require_same(settings: dict, intact: Run) -> None:
    """Raises RunError naming what was different in the run that is to be intervened on."""
    theirs = intact.settings
    changed = sorted(
        name for name in settings.keys() | theirs.keys() if name not in ITS_OWN and settings.get(name) != theirs.get(name)
    )
    if changed:
        raise RunError(f"{intact.folder}: was run with other {', '.join(changed)}; intervene with the same settings")
