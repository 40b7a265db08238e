"""``recheck``: measures the gain of a selection on new rollouts.

The highest of noisy gains are overestimates: a selection must be compared with its random control on new rollouts.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from data_prep.curation import scores as score_files
from future_l1_verl.files import as_json
from future_l1_verl.tables import empty_table

RESAMPLES = 10_000


def run(args: argparse.Namespace) -> None:
    found = recheck(args.selected, args.scores)
    table = empty_table("", "n", "gain when chosen", "gain now", "95 % interval", title="mean gain, in right answers")
    for name, row in found.items():
        chosen = "" if row["chosen"] is None else f"{row['chosen']:.2f}"
        low, high = row["interval"]
        table.add_row(name, str(row["n"]), chosen, f"{row['now']:.2f}", f"{low:.2f} .. {high:.2f}")
    Console().print(table)
    if args.json:
        args.json.write_text(as_json(found))


def recheck(selected: Path, folder: Path, seed: int = 0) -> dict[str, dict]:
    """Returns, for ``selected``, ``control`` and their ``difference``: ``n``, mean gain when ``chosen`` and ``now``, 95 %
    bootstrap ``interval`` of the latter over candidates. ``n`` counts only those with a complete score in ``folder``.

    Raises ScoresError if none is left of one of the two, or unless the two scorings differ only in their seed.
    """
    if not (selected / "control.parquet").exists():
        raise score_files.ScoresError(f"{selected}: holds no control.parquet; `select --control` writes one")
    report = json.loads((selected / "report.json").read_text())
    before, now = _settings(Path(report["settings"]["scores"])), _settings(folder)
    if (differing := {name for name in before | now if before.get(name) != now.get(name)}) != {"seed"}:
        raise score_files.ScoresError(
            f"{folder}: has to differ in its seed, and in nothing else, from the scores that {selected} was selected by; "
            f"it differs in {', '.join(sorted(differing)) or 'nothing'}"
        )
    counts = score_files.read(folder, ["id", "base_correct", "hint_correct"]).drop_null().to_pydict()
    gains = np.array(counts["hint_correct"]) - np.array(counts["base_correct"])
    fresh = dict(zip(counts["id"], gains.tolist(), strict=True))
    rng, found, means = np.random.default_rng(seed), {}, {}
    for name in ("selected", "control"):
        rows = pq.read_table(selected / f"{name}.parquet", columns=["id", "gain"]).to_pylist()
        scored = [row for row in rows if row["id"] in fresh]
        if not scored:
            raise score_files.ScoresError(f"{folder}: none of the {len(rows)} of {name} has a complete score")
        now = np.array([fresh[row["id"]] for row in scored], dtype=float)
        means[name] = np.array([rng.choice(now, len(now)).mean() for _ in range(RESAMPLES)])
        found[name] = _row(len(now), float(np.mean([row["gain"] for row in scored])), now.mean(), means[name])
    difference = found["selected"]["now"] - found["control"]["now"]
    count = found["selected"]["n"] + found["control"]["n"]
    found["difference"] = _row(count, None, difference, means["selected"] - means["control"])
    return found


def _settings(folder: Path) -> dict:
    """Returns the settings that a folder was scored with. Raises ScoresError."""
    file = folder / "settings.json"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise score_files.ScoresError(f"{file}: cannot be read ({error}); is {folder} a folder of `score`?") from error


def _row(count: int, chosen: float | None, now: float, means: np.ndarray) -> dict:
    return {"n": count, "chosen": chosen, "now": float(now), "interval": np.percentile(means, [2.5, 97.5]).tolist()}
