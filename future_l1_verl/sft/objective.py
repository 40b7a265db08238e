"""The stage-1 loss: cross-entropy over text and control tokens plus an error at the latents (paper section 2).

Index convention: row k of ``h`` and ``z`` belongs to slot k (latents/errors.py).
"""

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils.metric import AggregationType, Metric

from future_l1_verl.latents.errors import squared_error


def latent_sft_loss(
    model_output: dict[str, Tensor], data: TensorDict, dp_group: object = None, *, weight: float
) -> tuple[Tensor, dict[str, Metric]]:
    """Returns ``L_CE + weight * L_latent``, each a mean over the global batch.

    ``data`` carries ``loss_mask`` (ragged ``[B, T]``: 1 on supervised tokens, 0 on latents), the global counts
    ``batch_num_tokens`` and ``batch_num_latents``, and ``dp_size``, by which FSDP will divide the gradient. If
    ``model_output`` has ``latent_states`` and ``latent_targets``, the metrics say how well the latents are predicted.
    """
    supervised = torch.roll(data["loss_mask"].values(), -1)  # entry p scores token p + 1; a row starts with its prompt
    cross_entropy = -(model_output["log_probs"].values() * supervised).sum() / data["batch_num_tokens"] * data["dp_size"]
    error = model_output["latent_term"].values().sum() / data["batch_num_latents"] * data["dp_size"]
    metrics = {
        "train/cross_entropy": Metric(AggregationType.SUM, cross_entropy.detach().float()),
        "train/latent_error": Metric(AggregationType.SUM, error.detach().float()),
    }
    if "latent_targets" in model_output:
        sums = prediction_sums(model_output["latent_states"].values(), model_output["latent_targets"].values())
        # verl averages sums over data-parallel ranks (Metric.aggregate_dp).
        metrics |= {f"val/{name}": Metric(AggregationType.SUM, value * data["dp_size"]) for name, value in sums.items()}
    return cross_entropy + weight * error, metrics


def prediction_sums(h: Tensor, z: Tensor) -> dict[str, float]:
    """Returns sums over the slots of a micro-batch, from which `prediction_metrics` computes means.

    ``retrieved`` counts latents whose nearest embedding, of all in the micro-batch, is their own; ``chance`` is the expected
    number for guesses; ``baseline`` is the squared error of the micro-batch's mean embedding, the same for every row.
    """
    if len(z) == 0:
        return dict.fromkeys(("latents", "squared_error", "baseline", "retrieved", "chance", "square_h", "square_z"), 0.0)
    h, z = h.float(), z.float()
    # Equal embeddings (a still picture) all count as a latent's own.
    _, which, copies = z.unique(dim=0, return_inverse=True, return_counts=True)
    own = which[torch.cdist(h, z).argmin(dim=1)] == which
    return {
        "latents": float(len(z)),
        "squared_error": float(squared_error(h, z).sum()),
        "baseline": float(squared_error(z.mean(0).expand_as(z), z).sum()),
        "retrieved": float(own.sum()),
        "chance": float(copies[which].sum() / len(z)),
        "square_h": float(h.square().mean(-1).sum()),
        "square_z": float(z.square().mean(-1).sum()),
    }


def prediction_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Returns errors, their ratio to the baseline's, retrieval and root mean squares, from summed `prediction_sums`."""
    latents = sums["latents"]
    if not latents:
        return {}
    mean = {name: value / latents for name, value in sums.items()}
    return {
        "val/latent_squared_error": mean["squared_error"],
        "val/latent_baseline_error": mean["baseline"],
        "val/latent_error_ratio": mean["squared_error"] / mean["baseline"] if mean["baseline"] else 0.0,
        "val/latent_retrieval": mean["retrieved"],
        "val/latent_retrieval_chance": mean["chance"],
        "val/rms_hidden": mean["square_h"] ** 0.5,
        "val/rms_target": mean["square_z"] ** 0.5,
    }
