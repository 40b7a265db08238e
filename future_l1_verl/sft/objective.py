"""The stage-1 loss: cross-entropy over text and control tokens plus a squared error at the latents (paper section 2)."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.metric import AggregationType, Metric


def squared_error(h: Tensor, z: Tensor) -> Tensor:
    """``[K, H], [K, H] -> [K]``: mean over the hidden dimension (lambda = 0.1 belongs with the mean, assumptions.md)."""
    return (h.float() - z.detach().float()).square().mean(-1)


def latent_sft_loss(
    model_output: dict[str, Tensor], data: TensorDict, dp_group: object = None, *, weight: float
) -> tuple[Tensor, dict[str, Metric]]:
    """``L_CE + weight * L_latent``, each a mean over the global batch.

    ``data`` carries ``loss_mask`` (ragged ``[B, T]``: 1 on supervised tokens, 0 on latents), the global counts
    ``batch_num_tokens`` and ``batch_num_latents``, and ``dp_size``, by which FSDP will divide the gradient.
    """
    supervised = torch.roll(data["loss_mask"].values(), -1)  # entry p scores token p + 1; a row starts with its prompt
    cross_entropy = -(model_output["log_probs"].values() * supervised).sum() / data["batch_num_tokens"] * data["dp_size"]
    error = model_output["latent_term"].values().sum() / data["batch_num_latents"] * data["dp_size"]
    metrics = {
        "train/cross_entropy": Metric(AggregationType.SUM, cross_entropy.detach().float()),
        "train/latent_error": Metric(AggregationType.SUM, error.detach().float()),
    }
    return cross_entropy + weight * error, metrics
