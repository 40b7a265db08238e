"""How far the actor's log-probs are from the rollout's, in nats: `sums` of any part of a step add up to its `parity`."""

from collections.abc import Mapping

from torch import Tensor

from future_l1_verl.latents.spans import Role


def require_parity(metrics: Mapping[str, float], most: float) -> None:
    """Raises RuntimeError if a step's gap is larger than ``most``: rollout and actor are then not the same model."""
    if (gap := metrics["parity/text_gap_mean"]) > most:
        raise RuntimeError(
            f"rollout and actor are not the same model: their log-probs of the same tokens differ by {gap:.3g} nats on "
            f"average at the first step (parity.most_at_first={most:g}). Weights or buffers may not have reached the "
            "rollout; actor_rollout_ref.rollout.load_format=auto makes it start from the checkpoint's own"
        )


def sums(rollout: Tensor, actor: Tensor, roles: Tensor, compared: Tensor) -> dict[str, Tensor]:
    """Scalars: ``entries`` and ``text_gap_sum`` to be added over the parts of a step, the others to be maximised.

    Gaps are absolute differences of tokens (text and stops), and of decisions to go on. ``rollout``, ``actor``: fp32 ``[B,
    L]``; ``roles``: int8 ``[B, L]``; ``compared``: bool ``[B, L]``, False where there is nothing to compare: on padding, and
    at tokens that other weights than the actor's have generated.
    """
    gap = (rollout - actor).abs()
    text = gap[compared & ((roles == Role.TEXT) | (roles == Role.STOP))]
    decisions = gap[compared & (roles == Role.LATENT)]
    return {
        "entries": text.new_tensor(len(text)),
        "text_gap_sum": text.sum(),
        "text_gap_max": text.max() if len(text) else text.new_zeros(()),
        "decision_gap_max": decisions.max() if len(decisions) else decisions.new_zeros(()),
    }


def parity(found: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The figures of a step, from its `sums`. Without any text there are none, and ``parity/entries`` is 0."""
    entries = float(found["entries"])
    if not entries:
        return {"parity/entries": 0.0}
    return {
        "parity/text_gap_max": float(found["text_gap_max"]),
        "parity/text_gap_mean": float(found["text_gap_sum"]) / entries,
        "parity/entries": entries,
        "parity/decision_gap_max": float(found["decision_gap_max"]),
    }
