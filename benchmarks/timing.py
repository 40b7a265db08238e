"""Ways of doing one thing, timed by turns in one run: what slows the machine down meets all of them, and leaves the ratio."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

Spread = dict[str, float]


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way returns (its seconds) in each round; every second round goes backwards. A round before does not count."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            seconds[name].append(ways[name]())
    return seconds


def spread(values: Sequence[float]) -> Spread:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(above: Sequence[float], below: Sequence[float], best: Callable[[Sequence[float]], float] = min) -> Spread:
    """Spread of the ratios within the rounds; ``of_best``, which a busy machine disturbs least, is that of the best of each."""
    return spread([a / b for a, b in zip(above, below, strict=True)]) | {"of_best": best(above) / best(below)}


def shown(values: Spread, digits: int = 3) -> str:
    best = f"; best {values['of_best']:.{digits}f}" if "of_best" in values else ""
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to {values['max']:.{digits}f}{best})"
