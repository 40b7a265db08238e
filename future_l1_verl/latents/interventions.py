"""What a latent can be replaced with while decoding, to see whether the answer depends on it.

Everything after the replaced latent sees the replacement: it is what is injected, kept and returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from future_l1_verl.latents.noise import standard_normal

KINDS = ("given", "noise", "zero", "drop", "freeze")


@dataclass(frozen=True)
class Intervention:
    """What is put in the place of each latent of a response.

    ``given``: the vectors ``latents [T, H]``, one after the other over all spans, and from the first again after the last.
    ``noise``: a random direction of the latent's own length, a pure function of (``seed``, position, dimension). ``zero``: the
    zero vector. ``freeze``: the first latent of the span. ``drop``: nothing, spans are closed as they open; that is for the
    decoder to see to.

    Raises ValueError for another kind, and unless there are latents exactly if they are to be given.
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
        """What takes the place of ``latent`` ``[H]``, in its dtype and on its device.

        ``before`` are the latents of the response so far, replaced already, the last ``in_span`` of them in the span that this
        one continues. ``position`` is its absolute index in prompt plus response.
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
