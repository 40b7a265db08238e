"""Replaces latents while decoding, to find out whether the answer depends on them.

The replacement is injected, kept and returned; every later token sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from future_l1_verl.latents.noise import standard_normal

KINDS = ("given", "noise", "zero", "drop", "freeze")


@dataclass(frozen=True)
class Intervention:
    """The replacement of each latent of a response.

    ``given``: the vectors ``latents [T, H]``, one after the other over all spans; after the last, the first again.
    ``noise``: a random direction of the latent's own length, a pure function of (``seed``, position, dimension). ``zero``: the
    zero vector. ``freeze``: the first latent of the span. ``drop``: no latents; the decoder closes each span as it opens.

    Raises ValueError for another kind, for ``given`` without latents, and for another kind with latents.
    """

    kind: str
    latents: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"an intervention is one of {', '.join(KINDS)}, not {self.kind!r}")
        if (self.latents is not None) != (self.kind == "given"):
            raise ValueError("latents belong to the intervention 'given', and to no other")
        if self.latents is not None and (self.latents.dim() != 2 or not len(self.latents)):
            raise ValueError(f"given latents are [T, H] with T > 0, not {list(self.latents.shape)}")

    def replaced(self, latent: Tensor, before: Sequence[Tensor], in_span: int, position: int) -> Tensor:
        """Returns the replacement of ``latent`` ``[H]``, in its dtype and on its device.

        ``before`` are the earlier latents of the response, after replacement; the last ``in_span`` of them are in the same
        span. ``position`` is the absolute index of the latent in prompt plus response.
        """
        if self.latents is not None:
            return self.latents[len(before) % len(self.latents)].to(latent)
        match self.kind:
            case "noise":
                seed, where = torch.tensor([[self.seed], [position]], device=latent.device)
                direction = standard_normal(seed, where, len(latent))[0]
                return (direction * (latent.float().norm() / direction.norm())).to(latent.dtype)
            case "freeze" if in_span:
                return before[-in_span].to(latent)
            case "zero":
                return torch.zeros_like(latent)
        return latent
