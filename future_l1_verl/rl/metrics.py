"""What stage 2 reports of its rollouts at every step, as plain functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from future_l1_verl.latents.spans import Role

REWARD_PARTS = ("acc", "format", "contrastive", "diversity")


def parity(rollout: Tensor, actor: Tensor, roles: Tensor, present: Tensor) -> dict[str, float]:
    """How far the actor's log-probs are from the rollout's, in nats, where both score a token (text and stops).

    ``rollout``, ``actor``: fp32 ``[B, L]``; ``roles``: int8 ``[B, L]``; ``present``: bool ``[B, L]``, False on padding.
    """
    scored = present & ((roles == Role.TEXT) | (roles == Role.STOP))
    gap = (rollout - actor).abs()[scored]
    return {
        "parity/text_gap_max": float(gap.max()),
        "parity/text_gap_mean": float(gap.mean()),
        "parity/entries": float(len(gap)),
    }


def rollout_metrics(infos: Sequence[dict[str, float]]) -> dict[str, float]:
    """Reward parts and latent usage of a step from the ``reward_extra_info`` of its rollouts (rl/agent_loop.py)."""
    column = {key: torch.tensor([info[key] for info in infos], dtype=torch.float64) for key in infos[0]}
    metrics = {}
    for part in REWARD_PARTS:
        metrics[f"rewards/{part}/mean"] = float(column[part].mean())
        metrics[f"rewards/{part}/std"] = float(column[part].std(correction=0))
    for part in ("contrastive", "diversity"):
        metrics[f"rewards/{part}/undefined"] = float(1 - column[f"{part}_defined"].mean())
    spans = column["spans"].sum()
    return metrics | {
        "answers/parsed": float(column["parsed"].mean()),
        "latents/with_span": float((column["spans"] > 0).double().mean()),
        "latents/spans_per_answer": float(column["spans"].mean()),
        "latents/latents_per_answer": float(column["latents"].mean()),
        "latents/budget_end_share": float(column["budget_ends"].sum() / spans) if spans else 0.0,
    }
