"""The policy loss of LA-DAPO.

Index convention: everything is ``[B, L]`` over response indices, entry i about the token (or latent) at i. What a response
index is, its role, follows from the token ids (latents/spans.py). Each entry has two parts: the *decision* of the output
head (log p(token) at text and stops, log(1 - p(end)) at free slots) and, at slots, the log-*density* of the latent.
"""

from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla, kl_penalty, register_policy_loss
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rl.parity import sums
from future_l1_verl.rl.settings import LatentLoss


@register_policy_loss("la_dapo")
def la_dapo_policy_loss(**arguments: Any) -> tuple[Tensor, dict[str, Any]]:
    """Clip-higher, dual clip and token mean over the entries in ``response_mask``: verl's default with DAPO's settings."""
    return compute_policy_loss_vanilla(**arguments)


def la_dapo_loss(
    model_output: dict[str, Tensor],
    data: TensorDict,
    dp_group: object = None,
    *,
    config: Any,
    latent_config: Any,
    latent: LatentLoss,
    settings: LatentSettings,
    min_latents: int,
) -> tuple[Tensor, dict[str, Any]]:
    """Policy loss of all roles, plus the KL of tokens and the KL of latents to the reference.

    Upstream's ``ppo_loss`` (verl/workers/utils/losses.py) knows one log-prob per token and takes the KL of each: a
    difference of densities is no KL of tokens and unbounded (docs/differences.md, row 5), so slots are left out of that one.
    Without spans the two losses are equal.

    ``model_output`` holds ``log_probs`` (decisions), ``latent_term`` (log-densities), ``entropy`` if asked for, and, with a KL
    of latents, ``latent_kl``. ``data`` holds ``responses, response_mask, advantages``, and ``ref_log_prob`` if there is a
    reference. The weights before the update gave each entry ``old_log_probs`` and ``old_log_density``; with ``one_update``
    they are those that the model has now, and parity with ``rollout_log_probs`` is measured here, at the tokens whose ``lag``
    is 0. ``latent_config`` is verl's actor config with the clip range of latents.
    """
    batch = {name: data[name] for name in ("dp_size", "batch_num_tokens", "global_batch_size")}
    batch["loss_scale_factor"] = config.loss_scale_factor
    for each in (config, latent_config):
        each.global_batch_info.update(batch)
    output = {name: no_padding_2_padding(values, data) for name, values in model_output.items()}
    one_update = tu.get_non_tensor_data(data, "one_update", False)
    names = ["responses", "response_mask", "advantages"]
    names += ["rollout_log_probs", "lag"] if one_update else ["old_log_probs", "old_log_density"]
    fields = data.select(*names, *(["ref_log_prob"] if config.use_kl_loss else [])).to_padded_tensor()
    mask = fields["response_mask"].bool()
    layout = response_layout(fields["responses"], settings.tokens, settings.max_latents, min_latents)

    def aggregate(values: Tensor, entries: Tensor) -> Tensor:
        return agg_loss(values, entries, config.loss_agg_mode, **batch)

    def largest(value: Tensor) -> Metric:
        return Metric(AggregationType.MAX, value.detach().float())

    def summed(values: Tensor) -> Metric:
        # verl averages sums over data-parallel ranks (Metric.aggregate_dp).
        return Metric(AggregationType.SUM, (values.sum() * batch["dp_size"]).detach().float())

    metrics: dict[str, Any] = {}
    loss = 0.0
    text, slots = mask & ~layout.slots, mask & layout.slots
    new, density = output["log_probs"], output["latent_term"]
    if one_update:
        old, old_density = new.detach(), density.detach()
        for name, compared in (("parity", fields["lag"] == 0), ("stale", fields["lag"] > 0)):
            found = sums(fields["rollout_log_probs"], old, layout.roles, compared)
            metrics |= {f"{name}/{key}": (largest if key.endswith("max") else summed)(each) for key, each in found.items()}
    else:
        old, old_density = fields["old_log_probs"], fields["old_log_density"]
    if latent.ratio == "shared":
        old, new = old + old_density, new + density
        parts = [(old, new, mask, config, 1.0)]
        at_slots = (old, new, slots, config)
    else:
        at_slots = (old_density, density, slots, latent_config)
        parts = [(old, new, mask & (layout.roles != Role.LATENT_FORCED), config, 1.0), (*at_slots, latent.weight)]
    shown = {"text": (old, new, text, config), "latent": at_slots}
    for old, new, entries, clip, weight in parts:
        policy_loss, _ = la_dapo_policy_loss(
            old_log_prob=old, log_prob=new, advantages=fields["advantages"], response_mask=entries,
            loss_agg_mode=config.loss_agg_mode, config=clip,
        )  # fmt: skip
        loss = loss + weight * policy_loss
    metrics["actor/pg_loss"] = Metric(AggregationType.SUM, loss.detach())
    for name, (old, new, entries, clip) in shown.items():
        terms = _ratio_terms(old, new.detach(), fields["advantages"], entries, clip)
        metrics |= {f"actor/{name}/{key}_sum": summed(values) for key, values in terms.items()}
        metrics[f"actor/{name}/entries"] = summed(entries)

    if "entropy" in output:
        metrics["actor/entropy"] = Metric(AggregationType.SUM, aggregate(output["entropy"], mask).detach())
    if config.entropy_coeff != 0:
        entropy = aggregate(output["entropy"], mask & (layout.roles == Role.TEXT))
        loss = loss - config.entropy_coeff * entropy
        metrics["actor/entropy_loss"] = Metric(AggregationType.SUM, entropy.detach())
    if config.use_kl_loss:
        kl = kl_penalty(output["log_probs"], fields["ref_log_prob"], config.kl_loss_type)
        text_kl = aggregate(kl, text)
        loss = loss + config.kl_loss_coef * text_kl
        metrics["kl_loss"] = Metric(AggregationType.SUM, text_kl.detach())
        metrics["actor/text/ref_kl_sum"] = summed(kl.where(text, 0.0))
    if latent.kl_coef > 0:
        loss = loss + latent.kl_coef * aggregate(output["latent_kl"], slots)
        metrics["actor/latent/ref_kl_sum"] = summed(output["latent_kl"].where(slots, 0.0))
    return loss, metrics


def _ratio_terms(old: Tensor, new: Tensor, advantages: Tensor, entries: Tensor, clip: Any) -> dict[str, Tensor]:
    """Of ``entries``, 0 elsewhere; rl/metrics.py divides their sums by the number of entries once all micro-batches are in."""
    log_ratio = (new - old).where(entries, 0.0).clamp(-20, 20)
    ratio = log_ratio.exp()
    clipped = (advantages > 0) & (ratio > 1 + clip.clip_ratio_high) | (advantages < 0) & (ratio < 1 - clip.clip_ratio_low)
    return {"ratio": ratio * entries, "clip_fraction": clipped & entries, "old_kl": ratio - 1 - log_ratio}
