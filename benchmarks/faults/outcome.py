"""Keeps the outcomes of the runs of a fault, one JSON line each, and adds them up to a row of the table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Outcome:
    """``at_stake`` things were asked for or there already; ``lost`` of them are gone, ``wrong`` of them are not what they are
    undisturbed. ``seconds`` passed from the fault until the product went on or had ended. ``after`` says which: "went on",
    "ended with its reason", "refused".
    """

    at_stake: int
    lost: int
    wrong: int
    seconds: float
    after: str


def append(name: str, outcome: Outcome, commit: str, results: Path = RESULTS) -> None:
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(outcome) | {"commit": commit}) + "\n")


def read(name: str, results: Path = RESULTS) -> list[Outcome]:
    """The runs so far, in order."""
    path = results / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Outcome(**{key: value for key, value in json.loads(line).items() if key != "commit"}) for line in lines]


def row(done: str, unit: str, outcomes: list[Outcome]) -> str:
    """A line of the table: what was done, how often, what was at stake, what was lost, how long it took, how it went on."""
    stake, lost, wrong = (sum(getattr(each, name) for each in outcomes) for name in ("at_stake", "lost", "wrong"))
    longest = max(each.seconds for each in outcomes)
    after = ", ".join(f"{said} ({times})" for said, times in Counter(each.after for each in outcomes).most_common())
    return f"| {done} | {len(outcomes)} | {stake} {unit} | {lost} | {wrong} | {longest:.0f} | {after} |"
