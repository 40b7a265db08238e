"""The metrics of stage 2 at every step, as plain functions."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from future_l1_verl.latents.spans import Layout, Role
from future_l1_verl.rewards.latent import ContrastiveCase, adjacent_cosines
from future_l1_verl.rewards.total import GroupRewards
from future_l1_verl.rewards.weights import PARTS
from future_l1_verl.rl.parity import parity
from future_l1_verl.statistics import by_split, score

RATIO_SUMS = ("ratio", "clip_fraction", "old_kl", "ref_kl")
COUNTS = (
    *("parity/entries", "actor/text/entries", "actor/latent/entries"),
    *("filter/dropped", "filter/too_hard", "filter/too_easy"),
)
COLLAPSE = 0.1
"""If fewer answers than this share have a span, latents are about to vanish, and R_ctr and R_div with them."""


def token_versions(segments: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Returns the version of the weights of each token, int64 ``[B, L]``, -1 on padding, from rows of ``(version, tokens)``."""
    rows = [torch.tensor([version for version, tokens in row for _ in range(tokens)]) for row in segments]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def off_policy_metrics(versions: Tensor, current: int) -> dict[str, float]:
    """Returns by how many synchronisations the weights behind a token lag the ``current`` ones, over all tokens, and the share
    of answers written by more than one version. ``versions`` is from `token_versions`.
    """
    versions = versions[(versions >= 0).any(1)]
    present = versions >= 0
    lag = (current - versions)[present].double()
    last = versions.amax(1, keepdim=True)
    return {
        "off_policy/lag_mean": float(lag.mean()),
        "off_policy/lag_max": float(lag.max()),
        "off_policy/mixed_answers": float(((versions != last) & present).any(1).double().mean()),
    }


def span_usage(layout: Layout, spans: Sequence[Tensor], rewards: GroupRewards, row: int) -> dict[str, float]:
    """Returns how rollout ``row`` of a group uses its latents; NaN where there is nothing to measure.

    ``cross_cosine`` is its mean similarity to the other rollouts of the prompt, as a cosine.
    """
    adjacent = adjacent_cosines(spans)
    others = torch.cat([rewards.similar[row, :row], rewards.similar[row, row + 1 :]])
    others = others[~others.isnan()]
    return {
        "spans": float(len(spans)),
        "latents": float(layout.slots.sum()),
        "stops": float((layout.roles == Role.STOP).sum()),
        "budget_ends": float((layout.roles == Role.STOP_FORCED).sum()),
        "case": float(rewards.case[row]),
        "diverse": float(rewards.diverse[row]),
        "adjacent_cosine": float(adjacent.mean()) if len(adjacent) else math.nan,
        "cross_cosine": float(2 * others.mean() - 1) if len(others) else math.nan,
    }


def reward_metrics(infos: Sequence[Mapping[str, float | str]], usage: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns reward parts and their cases over a step, from the rollouts' ``reward_extra_info`` and ``latent_usage``."""
    info, used = _columns(infos), _columns(usage)
    judged = info["judged"] > 0
    metrics = {"answers/parsed": _mean(info["parsed"][judged]), "answers/unjudged": float(1 - info["judged"].mean())}
    for part in PARTS:
        values = info["acc" if part == "accuracy" else part][judged]
        metrics[f"rewards/{part}/mean"] = _mean(values)
        metrics[f"rewards/{part}/std"] = float(values.std(correction=0)) if len(values) else 0.0
    undefined = {"contrastive": used["case"] == ContrastiveCase.UNDEFINED, "diversity": used["diverse"] == 0}
    for part in PARTS:
        metrics[f"rewards/{part}/undefined"] = float(undefined.get(part, ~judged).double().mean())
    for case in ContrastiveCase:
        metrics[f"rewards/contrastive/{case.name.lower()}"] = float((used["case"] == case).double().mean())
    return metrics


def usage_metrics(usage: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the use of latents in the rollouts of a step; ``trigger_collapse`` is 1 if fewer than `COLLAPSE` open a span."""
    used = _columns(usage)
    spans = float(used["spans"].sum())
    with_span = float((used["spans"] > 0).double().mean())
    return {
        "latents/with_span": with_span,
        "latents/trigger_collapse": float(with_span < COLLAPSE),
        "latents/spans_per_answer": float(used["spans"].mean()),
        "latents/latents_per_answer": float(used["latents"].mean()),
        "latents/stop_share": float(used["stops"].sum()) / spans if spans else 0.0,
        "latents/budget_end_share": float(used["budget_ends"].sum()) / spans if spans else 0.0,
        "latents/adjacent_cosine": _mean(used["adjacent_cosine"]),
        "latents/cross_cosine": _mean(used["cross_cosine"]),
    }


def judged_rows(
    sources: Sequence[str], uids: Sequence[str], infos: Mapping[str, Sequence], expected: dict[tuple[str, str], int]
) -> tuple[list[int], dict[tuple[str, str], int]]:
    """Returns the validation answers with a verdict, and the expected number of answers per question without the others.

    ``infos["judged"]`` is 1 or 0 per answer; ``expected`` counts answers by source and uid.
    """
    kept = [i for i, judged in enumerate(infos["judged"]) if judged]
    left = dict(expected)
    for i in set(range(len(uids))) - set(kept):
        left[str(sources[i]), str(uids[i])] -= 1
    return kept, {question: count for question, count in left.items() if count > 0}


def validation_metrics(infos: Mapping[str, Sequence]) -> dict[str, float]:
    """Returns ``val/SPLIT/{n,missing,parsed,accuracy,accuracy_low,accuracy_high}`` per split and for ``all``, scored as in an
    evaluation (evaluation/scoring.py); without the last four if all verdicts of the split are missing.

    ``infos`` has the ``reward_extra_info`` (agent_loop.py) of each answer; there may be several answers to a question.
    """
    scores = [{"accuracy": acc} if judged else None for acc, judged in zip(infos["acc"], infos["judged"], strict=True)]
    metrics = {}
    for split, rows in by_split(infos["split"]).items():
        figures = score([infos["parsed"][i] for i in rows], [scores[i] for i in rows])
        metrics |= {f"val/{split}/{name}": float(figures[name]) for name in ("n", "missing")}
        if accuracy := figures["scores"].get("accuracy"):
            low, high = accuracy["interval"]
            found = {"parsed": figures["parsed"], "accuracy": accuracy["mean"], "accuracy_low": low, "accuracy_high": high}
            metrics |= {f"val/{split}/{name}": value for name, value in found.items()}
    return metrics


def divide_ratio_sums(metrics: dict[str, float]) -> dict[str, float]:
    """Replaces the sums of rl/loss.py over text and latent entries by means over them; a part without entries gives 0."""
    divided = dict(metrics)
    for part in ("text", "latent"):
        entries = divided[f"actor/{part}/entries"]
        for name in RATIO_SUMS:
            total = divided.pop(f"actor/{part}/{name}_sum", None)
            if total is not None:
                divided[f"actor/{part}/{name}"] = total / entries if entries else 0.0
    return divided


def divide_parity_sums(metrics: dict[str, float]) -> dict[str, float]:
    """Replaces the `sums` of an update (of tokens by its own weights and by others) by parity and the gap of the others."""
    divided = dict(metrics)
    found = {
        name: {key.rsplit("/", 1)[1]: divided.pop(key) for key in metrics if key.startswith(f"actor/{name}/")}
        for name in ("parity", "stale")
    }
    if found["parity"]:
        divided |= parity(found["parity"])
        divided["off_policy/text_gap_mean"] = parity(found["stale"]).get("parity/text_gap_mean", 0.0)
    return divided


def _columns(rows: Sequence[Mapping[str, float | str]]) -> dict[str, Tensor]:
    """Returns the numeric columns only."""
    keys = [key for key, value in rows[0].items() if not isinstance(value, str)]
    return {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in keys}


def _mean(values: Tensor) -> float:
    """Returns the mean of the values that are not NaN; 0 if there are none."""
    values = values[~values.isnan()]
    return float(values.mean()) if len(values) else 0.0
