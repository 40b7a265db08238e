"""R_ctr and R_div: what the latents themselves earn (paper section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence


def outcome_contrastive(trajectories: Sequence[Tensor | None], correct: Sequence[bool], temperature: float) -> Tensor:
    """R_ctr of each rollout of one prompt, fp32 ``[N]``, each in [0, 1].

    ``trajectories``: per rollout its latents ``[T_i, H]`` in order of time, or None (or no row) if it has none; ``correct``:
    its outcome. With s_ij the mean of (1 + cos)/2 over the latents that i and j both have, P_i the other correct rollouts and
    N_i the other wrong ones, ``R_ctr(i) = e^(s_i/t) / (e^(s_i/t) + sum over N_i of e^(s_ij/t))`` where s_i is the largest
    s_ij in P_i. Without P_i it is 0, without N_i it is 1. A rollout is in none of its own sets.

    A rollout without latents has no value of its own; it is given the mean of those that have one, so that within a group
    it gains or loses nothing by it, and it is in no other rollout's sets. Raises ValueError on a temperature that is not
    positive or on lists of different lengths.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if len(trajectories) != len(correct):
        raise ValueError(f"{len(trajectories)} trajectories but {len(correct)} outcomes")
    defined = torch.tensor([z is not None and len(z) > 0 for z in trajectories])
    values = torch.zeros(len(trajectories))
    if not defined.any():
        return values
    similar = _similarity([z for z in trajectories if z is not None and len(z) > 0])
    right = torch.tensor(list(correct), dtype=torch.bool)[defined]
    other = ~torch.eye(len(right), dtype=torch.bool)
    positive, negative = other & right, other & ~right
    none = torch.tensor(float("-inf"))
    best = torch.where(positive, similar, none).max(dim=1).values / temperature
    rivals = torch.where(negative, similar / temperature, none).logsumexp(dim=1)
    # sigmoid(best - rivals) is the quotient above; with no rival it is 1, with no positive it is defined to be 0.
    values[defined] = torch.where(positive.any(dim=1), torch.sigmoid(best - rivals), 0.0)
    values[~defined] = values[defined].mean()
    return values


def _similarity(trajectories: Sequence[Tensor]) -> Tensor:
    """s_ij, fp32 ``[N, N]``. Padding with zeros adds nothing to an inner product, so one matrix product does all steps."""
    lengths = torch.tensor([len(z) for z in trajectories])
    padded = pad_sequence([normalize(z.float(), dim=-1) for z in trajectories], batch_first=True).flatten(1)
    return (1 + padded @ padded.T / torch.minimum(lengths[:, None], lengths)) / 2


def temporal_diversity(spans: Sequence[Tensor]) -> float:
    """R_div of one rollout: minus the mean squared cosine of the mean latents of adjacent spans, in [-1, 0].

    ``spans``: the latents ``[L_m, H]`` of each span, in order. 0 for fewer than two spans.
    """
    if len(spans) < 2:
        return 0.0
    means = torch.stack([span.float().mean(dim=0) for span in spans])
    return -float(torch.cosine_similarity(means[:-1], means[1:], dim=-1).square().mean())
