"""Turns future frames into the latents of stage 1: pixels for the vision tower, and latents from its features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from transformers import BaseImageProcessor

from future_l1_verl.modeling.grid import latent_grid


def target_pixels(
    images: Sequence[Image.Image], processor: BaseImageProcessor, max_latents: int, resize: bool = True
) -> tuple[Tensor, Tensor]:
    """Returns ``pixel_values`` and ``grid_thw [F, 3]`` of future frames.

    With ``resize`` each is shrunk to as many embeddings as a span holds; without, it keeps the resolution of an observed frame,
    and `Targets` pools its features.
    """
    if resize:
        unit = processor.patch_size * processor.merge_size
        grids = [latent_grid(*image.size, max_latents) for image in images]
        sizes = [(columns * unit, rows * unit) for rows, columns in grids]
        images = [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(images, sizes, strict=True)]
    features = processor(images=list(images), do_resize=not resize, return_tensors="pt")
    return features["pixel_values"], features["image_grid_thw"]


@dataclass(frozen=True)
class Targets:
    """``pool``: features of a frame of any size become ``max_latents`` by averaging over the cells of a grid, in two dimensions
    (row 27 of docs/differences.md). ``unit``: each latent is scaled to a root mean square of 1."""

    max_latents: int
    pool: bool = False
    unit: bool = False

    def __call__(self, features: Tensor, grid_thw: Tensor | None, merge_size: int) -> Tensor:
        """Returns detached ``[K, H]`` from merged ``features [N, H]``, frame by frame; ``grid_thw [F, 3]`` is in patches."""
        latents = features.detach()
        if self.pool and grid_thw is not None:
            sizes = [(int(rows) // merge_size, int(columns) // merge_size) for _, rows, columns in grid_thw.tolist()]
            frames = latents.split([rows * columns for rows, columns in sizes])
            latents = torch.cat([self._pooled(frame, *size) for frame, size in zip(frames, sizes, strict=True)])
        if self.unit:
            wide = latents.float()
            latents = (wide * wide.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()).to(latents.dtype)
        return latents

    def _pooled(self, frame: Tensor, rows: int, columns: int) -> Tensor:
        picture = frame.view(rows, columns, -1).permute(2, 0, 1)
        return adaptive_avg_pool2d(picture.float(), latent_grid(columns, rows, self.max_latents)).flatten(1).T.to(frame.dtype)
