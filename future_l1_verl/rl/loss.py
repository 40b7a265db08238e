"""The policy loss of LA-DAPO on verl's own: text and latents in one ratio, the KL on text alone."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla, kl_penalty, register_policy_loss
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from future_l1_verl.latents.spans import response_layout
from future_l1_verl.latents.tokens import LatentSettings


@register_policy_loss("la_dapo")
def la_dapo_policy_loss(**arguments: Any) -> tuple[Tensor, dict[str, Any]]:
    """Clip-higher, dual clip and token mean, one clip range for text and latents: verl's default loss with DAPO's settings."""
    return compute_policy_loss_vanilla(**arguments)


def la_dapo_loss(
    model_output: dict[str, Tensor],
    data: TensorDict,
    dp_group: object = None,
    *,
    config: Any,
    kl_coef: float,
    latent: LatentSettings,
) -> tuple[Tensor, dict[str, Any]]:
    """verl's ``ppo_loss`` over the log-probs of all roles, plus the token KL to the reference.

    Upstream (verl/workers/utils/losses.py) takes the KL of every response entry. At a slot the entry is a density, whose
    difference is no KL of tokens and is unbounded (reference-audit.md, row 5): slots are left out of it. So ``config`` must
    have upstream's KL switched off. With ``kl_coef`` 0 there is no reference.
    """
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    if kl_coef == 0:
        return loss, metrics
    log_prob = no_padding_2_padding(model_output["log_probs"], data)
    fields = data.select("response_mask", "ref_log_prob", "responses").to_padded_tensor()
    slots = response_layout(fields["responses"], latent.tokens, latent.max_latents).slots
    kl = agg_loss(
        loss_mat=kl_penalty(log_prob, fields["ref_log_prob"], config.kl_loss_type),
        loss_mask=fields["response_mask"].bool() & ~slots,
        loss_agg_mode=config.loss_agg_mode,
        **config.global_batch_info,
    )
    metrics["kl_loss"] = Metric(AggregationType.SUM, kl.detach())
    return loss + kl_coef * kl, metrics
