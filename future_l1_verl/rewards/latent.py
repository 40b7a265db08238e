"""R_ctr and R_div: the rewards of the latents themselves (paper section 4)."""

from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


class ContrastiveCase(IntEnum):
    """The form that R_ctr took for a rollout."""

    UNDEFINED = 0  # it has no latents, or no verdict
    NO_POSITIVE = 1  # no other correct rollout with latents: 0
    NO_NEGATIVE = 2  # a positive, but no other wrong rollout with latents: 1
    CONTRAST = 3  # both


def outcome_contrastive(trajectories: Sequence[Tensor | None], correct: Sequence[bool | None], temperature: float) -> Tensor:
    """Returns R_ctr of each rollout of one prompt, fp32 ``[N]`` in [0, 1]; 0 where it is not defined.

    ``trajectories``: per rollout its latents ``[T_i, H]`` or None; ``correct``: per rollout whether its answer is right, None
    without a verdict. The formula is in `contrast`. Raises what `contrast` raises, and ValueError if latents are not finite.
    """
    return contrast(similarities(trajectories), correct, temperature)[0]


def contrast(similar: Tensor, correct: Sequence[bool | None], temperature: float) -> tuple[Tensor, Tensor]:
    """Returns R_ctr of each rollout of one prompt, fp32 ``[N]`` in [0, 1], and its `ContrastiveCase`, int64 ``[N]``.

    ``similar`` is `similarities` of the rollouts' latents; ``correct`` their outcomes, None without a verdict. With P_i the
    other correct rollouts and N_i the other wrong ones, ``R_ctr(i) = e^(s_i/t) / (e^(s_i/t) + sum over N_i of e^(s_ij/t))``
    where s_i is the largest s_ij in P_i. If P_i is empty it is 0; else, if N_i is empty, it is 1. A rollout without latents or
    verdict is in no set, and its own value is not defined and 0 here.

    Raises ValueError on a temperature that is not positive or on lists of different lengths.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if len(similar) != len(correct):
        raise ValueError(f"{len(similar)} rollouts but {len(correct)} outcomes")
    if not correct:
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    right = torch.tensor([outcome is True for outcome in correct], dtype=torch.bool)
    wrong = torch.tensor([outcome is False for outcome in correct], dtype=torch.bool)
    defined = ~similar.diagonal().isnan() & (right | wrong)
    other = defined & ~torch.eye(len(similar), dtype=torch.bool)
    positive, negative = other & right, other & wrong
    none = torch.tensor(float("-inf"))
    best = torch.where(positive, similar / temperature, none).amax(dim=1)
    rivals = torch.where(negative, similar / temperature, none).logsumexp(dim=1)
    case = 1 + positive.any(dim=1) * (1 + negative.any(dim=1).long())
    # sigmoid(best - rivals) is the quotient above; with no rival it is 1, with no positive it is defined to be 0.
    values = torch.where(positive.any(dim=1), torch.sigmoid(best - rivals), 0.0)
    return torch.where(defined, values, 0.0), torch.where(defined, case, int(ContrastiveCase.UNDEFINED))


def similarities(trajectories: Sequence[Tensor | None]) -> Tensor:
    """Returns s_ij, the mean of (1 + cos)/2 over the time steps at which rollouts i and j both have latents; fp32 ``[N, N]``.

    ``trajectories``: per rollout its latents ``[T_i, H]``; for None or T_i = 0 the row and column are NaN. Raises ValueError
    naming the first rollout whose latents are not finite.
    """
    present = {i: z for i, z in enumerate(trajectories) if z is not None and len(z) > 0}
    similar = torch.full((len(trajectories), len(trajectories)), float("nan"))
    if not present:
        return similar
    rows = list(present.values())
    lengths = torch.tensor([len(z) for z in rows])
    cosines = torch.zeros(len(rows), len(rows))
    for t in range(int(lengths.max())):
        alive = (lengths > t).nonzero()[:, 0]
        step = torch.stack([rows[i][t] for i in alive.tolist()]).float()
        products = step @ step.T
        norms = products.diagonal().sqrt().clamp(min=1e-12)
        cosines[alive[:, None], alive] += (products / norms / norms[:, None]).clamp(-1, 1)
    if not cosines.isfinite().all():
        rollout = list(present)[int((~cosines.diagonal().isfinite()).nonzero()[0])]
        raise ValueError(f"latents of rollout {rollout} of the group are not finite")
    where = torch.tensor(list(present))
    similar[where[:, None], where] = (1 + cosines / torch.minimum(lengths[:, None], lengths)) / 2
    return similar


def adjacent_cosines(spans: Sequence[Tensor]) -> Tensor:
    """Returns the cosines of the mean latents of adjacent spans, fp32 ``[M - 1]``; each span has latents ``[L_m, H]``."""
    if len(spans) < 2:
        return torch.zeros(0)
    means = torch.stack([span.float().mean(dim=0) for span in spans])
    return cosine_similarity(means[:-1], means[1:], dim=-1)


def temporal_diversity(spans: Sequence[Tensor]) -> float:
    """Returns R_div of one rollout: minus the mean squared cosine of the mean latents of adjacent spans, in [-1, 0].

    0 for fewer than two spans, where it is not defined.
    """
    cosines = adjacent_cosines(spans).clamp(-1, 1)
    return -float(cosines.square().mean()) if len(cosines) else 0.0
