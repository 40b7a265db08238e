"""Describes in one sentence what stage 2 learned, from its validation curves."""

import re
from collections.abc import Mapping

from future_l1_verl.evaluation.curves import Curve


def what_was_learned(curves: Mapping[str, Curve]) -> str | None:
    """Returns the sentence for ``curves`` by tag, as `read_curves` gives them; None without two validations."""
    accuracy = {match[1]: curve for tag, curve in curves.items() if (match := re.fullmatch(r"val/(.+)/accuracy", tag))}
    overall = accuracy.pop("all", [])
    if len(overall) < 2:
        return None
    (first, _), (last, _) = overall[0], overall[-1]
    parts = [
        f"From step {first} to step {last} accuracy on {curves['val/all/n'][-1][1]:.0f} validation questions went "
        f"{_way(overall)} (95 % interval at the end: {_end(curves, 'low')} to {_end(curves, 'high')})"
    ]
    if len(accuracy) > 1:
        gain = {split: curve[-1][1] - curve[0][1] for split, curve in accuracy.items()}
        most, least = max(gain, key=gain.get), min(gain, key=gain.get)
        parts.append(f"most in {most} ({_way(accuracy[most])}), least in {least} ({_way(accuracy[least])})")
    parts.append(f"the share of answers that name an option {_way(curves['val/all/parsed'])}")
    if latents := curves.get("latents/latents_per_answer"):
        parts.append(f"latents per answer {_way(latents)}")
    return "; ".join(parts) + "."


def _way(curve: Curve) -> str:
    return f"from {curve[0][1]:.3f} to {curve[-1][1]:.3f}"


def _end(curves: Mapping[str, Curve], side: str) -> str:
    return f"{curves[f'val/all/accuracy_{side}'][-1][1]:.3f}"
