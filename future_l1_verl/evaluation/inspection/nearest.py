"""Finds the future frame nearest to a latent, among embeddings made like the targets of stage 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForImageTextToText, AutoProcessor

from future_l1_verl.data.twiff import frame_pool
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.targets import target_pixels

BATCH = 64  # frames


class Nearest(NamedTuple):
    """The index of a candidate frame, and the cosine of a latent with its embedding."""

    frame: int
    cosine: float


class Tower:
    """The vision tower and merger of a checkpoint: float32 on a CPU, the checkpoint's type elsewhere.

    Frames are shrunk to ``max_latents`` embeddings, as by ``latent.targets=resize`` of stage 1.
    """

    def __init__(self, checkpoint: str | Path, device: str = "cpu") -> None:
        self.max_latents = LatentSettings.from_checkpoint(checkpoint).max_latents
        self.images = AutoProcessor.from_pretrained(checkpoint).image_processor
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
        self.visual = model.model.visual.to(device, torch.float32 if device == "cpu" else model.dtype).eval()

    @torch.inference_mode()
    def embed(self, frames: Sequence[Image.Image]) -> Tensor:
        """Returns e* of RGB frames: fp32 ``[F, max_latents, H]``, on the CPU."""
        return torch.cat([self._embed(frames[at : at + BATCH]) for at in range(0, len(frames), BATCH)])

    def _embed(self, frames: Sequence[Image.Image]) -> Tensor:
        pixels, grid = target_pixels(frames, self.images, self.max_latents)
        device = self.visual.device
        features = self.visual(pixels.to(device, self.visual.dtype), grid_thw=grid.to(device)).pooler_output
        return features.float().cpu().unflatten(0, (len(frames), self.max_latents))


def nearest(span: Tensor, candidates: Tensor) -> list[Nearest]:
    """Returns for each latent of a ``span [T, H]`` the frame among ``candidates [F, L, H]``, F > 0 and L >= T, whose embedding
    at the latent's index has the highest cosine with it; the first of equal ones."""
    cosines = cosine_similarity(span.float()[None], candidates[:, : len(span)].float(), dim=-1)
    best, which = cosines.max(dim=0)
    return [Nearest(*pair) for pair in zip(which.tolist(), best.tolist(), strict=True)]


def unseen(shown: Sequence[int], count: int) -> list[int]:
    """Returns the 0-based numbers of TwiFF's pool frames, in a clip of ``count``, after the last one ``shown``.

    If only frames of the pool are shown, a gap between them counts too: questions on the time between (Interp.) have one.
    """
    pool = sorted(set(frame_pool(count)))
    known = min(shown, default=-1) if set(shown) <= set(pool) else max(shown)
    return [number for number in pool if number > known and number not in shown]
