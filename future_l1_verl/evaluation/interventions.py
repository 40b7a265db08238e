"""Chooses the replacement vectors of an intervention from the answers of an intact run."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.choices import KINDS
from future_l1_verl.evaluation.runs import Record, Run, RunError
from future_l1_verl.latents.interventions import Intervention

# Settings that may differ between a run and the intact run, which may have more questions.
ITS_OWN = ("intervene", "intact", "save_latents", "questions")


@dataclass(frozen=True)
class Interventions:
    """``swap``: latents of another answer, if possible with the same number in each span, else with at least as many in total,
    else any. ``shuffle``: the answer's own latents, in another order. The other kinds are in `latents.interventions`.

    An answer without latents is not changed. Raises RunError if ``intact`` is itself a run with an intervention, or did not
    keep the latents that are needed.
    """

    kind: str
    intact: Run
    seed: int = 0
    _records: dict[int, Record] = field(init=False, repr=False)
    _donors: dict[tuple[int, ...], list[_Donors]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"--intervene is one of {', '.join(KINDS)}, not {self.kind!r}")
        settings = self.intact.settings
        if settings.get("intervene"):
            raise RunError(f"{self.intact.folder}: is not intact, but a run with --intervene {settings['intervene']}")
        if self.kind in ("swap", "shuffle") and not settings.get("save_latents"):
            raise RunError(f"{self.intact.folder}: was run without --save-latents, which --intervene {self.kind} needs")
        object.__setattr__(self, "_records", {record.row: record for record in self.intact.records})

    def of_row(self, row: int) -> tuple[Intervention | None, int | None]:
        """Returns the intervention on the answer to question ``row``, and the donor's row if there is one. Raises RunError if
        latents that are needed were not kept."""
        record = self._records[row]
        if not record.spans:
            return None, None
        draw = random.Random(hashlib.sha256(f"{self.seed}\0{row}".encode()).digest())
        if self.kind == "swap":
            donor = self._donor(record, draw)
            return Intervention("given", runs.latents(self.intact.folder, donor.row)), donor.row
        if self.kind == "shuffle":
            latents = runs.latents(self.intact.folder, row)
            order = list(range(len(latents)))
            draw.shuffle(order)
            return Intervention("given", latents[torch.tensor(order)]), None
        return Intervention(self.kind, seed=draw.randrange(2**31)), None

    def _donor(self, record: Record, draw: random.Random) -> Record:
        wanted = tuple(record.spans)
        if wanted not in self._donors:
            fits: list[Callable[[list[int]], bool]]
            fits = [lambda spans: tuple(spans) == wanted, lambda spans: sum(spans) >= sum(wanted), lambda _: True]
            having = [donor for donor in self.intact.records if donor.spans]
            self._donors[wanted] = [_Donors([donor for donor in having if fit(donor.spans)]) for fit in fits]
        for donors in self._donors[wanted]:
            if (found := donors.draw(record, draw)) is not None:
                return found
        raise RunError(f"{self.intact.folder}: no other answer than that of row {record.row} has latents to swap in")


class _Donors:
    """Answers grouped by truth, so that those with one truth can be left out without a search through all."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = sorted(records, key=lambda record: record.truth)
        self.truths = [record.truth for record in self.records]

    def draw(self, record: Record, draw: random.Random) -> Record | None:
        """Returns an answer to another question, with another truth if there is one; None if there are no others."""
        first, after = bisect_left(self.truths, record.truth), bisect_right(self.truths, record.truth)
        if others := len(self.records) - (after - first):
            chosen = draw.randrange(others)
            return self.records[chosen if chosen < first else chosen + after - first]
        left = [donor for donor in self.records if donor.row != record.row]
        return draw.choice(left) if left else None


def require_same(settings: dict, intact: Run) -> None:
    """Raises RunError naming the settings that differ in the intact run, or if it has fewer questions."""
    theirs = intact.settings
    changed = sorted(
        name for name in settings.keys() | theirs.keys() if name not in ITS_OWN and settings.get(name) != theirs.get(name)
    )
    if changed:
        raise RunError(f"{intact.folder}: was run with other {', '.join(changed)}; intervene with the same settings")
    if (most := theirs["questions"]) < settings["questions"]:
        raise RunError(f"{intact.folder}: has fewer questions ({most}, not {settings['questions']}); use --limit {most}")
