"""The base of all backbones: a Qwen-VL forward pass that takes latents and returns the likelihoods of the answers.

The classes add no parameters: `backbones.install_latents` changes the class of a stock model, so checkpoints stay plain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.packing import Packing, queued
from future_l1_verl.modeling.sequence import Whole
from future_l1_verl.modeling.targets import Targets

Objective = Callable[[Tensor, Tensor], Tensor]
"""``(h [K, H], z [K, H]) -> [K]`` in fp32 at least: a number per slot, from the state that feeds it and the slot's row of z."""


@dataclass
class LatentOutput(ModelOutput):
    """The model's output for a packed micro-batch with N scored tokens, K of them slots (`Packing` gives the order).

    ``log_probs``, ``entropy``: fp32 ``[N]``, the decisions of the output head (`Head`). ``latent_term``,
    ``latent_divergence``: fp32 ``[K]``, the objective and the divergence of each slot. ``latent_states``, ``latent_targets``:
    ``[K, H]``, the states that feed the slots, and what is in them.
    """

    log_probs: Tensor
    latent_term: Tensor | None = None
    entropy: Tensor | None = None
    latent_divergence: Tensor | None = None
    latent_states: Tensor | None = None
    latent_targets: Tensor | None = None


@dataclass
class VisionFeatures:
    """The vision tower's features of images, videos and future frames."""

    features: tuple[Tensor, Tensor, Tensor]  # [N, H] each, in that order
    layers: list[Tensor]  # per deepstack layer [images + videos, H]; future frames have none: latents carry no deepstack
    anchor: Tensor  # scalar 0


class LatentVL(nn.Module):
    """Mixed into a vision-language model of transformers, whose ``<|latent|>`` positions then take latents as embeddings.

    A backbone defines what is special in its vision tower and language model: `MERGERS`, `_layers` and `_decode`.
    """

    MERGERS: ClassVar[tuple[str, ...]]  # the tower's submodules that turn its features into embeddings

    latent: LatentSettings
    objective: Objective
    divergence: Objective | None
    targets: Targets
    sequence: Whole

    def freeze(self, tower: bool, merger: bool) -> None:
        """Turns off the gradients of the vision tower's own parameters, of its mergers', or of both."""
        for name, parameter in self.model.visual.named_parameters():
            if merger if name.split(".")[0] in self.MERGERS else tower:
                parameter.requires_grad_(False)

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        """Returns the features ``[N, H]`` in the tower's output that also go into layers of the language model."""
        raise NotImplementedError

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: object) -> Tensor:
        """Returns the last hidden states ``[1, T, H]``; ``layers`` ``[visual positions, H]`` are empty without vision."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        packing: Packing,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        latents: Tensor | None = None,
        latent_pixel_values: Tensor | None = None,
        latent_grid_thw: Tensor | None = None,
        reference_states: Tensor | None = None,
        temperature: float = 1.0,
        return_entropy: bool = False,
        return_latent_states: bool = False,
        use_cache: bool = False,
    ) -> LatentOutput:
        """Scores the answers of a packed micro-batch: ``input_ids [1, T]``, ``position_ids [4, 1, T]`` (text and M-RoPE).

        Images and videos are those of each question once, in the order of the questions. Slots are the ``<|latent|>``
        positions; their latents come either as vectors ``latents [K, H]``, row by row, or as future frames
        ``latent_pixel_values`` with ``latent_grid_thw``, of whose merged vision features `Targets` makes them, detached (paper
        section 2). ``reference_states [K, H]`` are another model's `LatentOutput.latent_states` of the same rows;
        ``temperature`` is that of the decisions. ``use_cache`` must be False. Raises ValueError if slots and latents, or
        placeholders and features, differ in number, or if a slot is in a prompt.
        """
        if use_cache:
            raise ValueError("a packed micro-batch cannot be continued: use_cache must be False")
        ids = input_ids[0].cpu()  # needed on the host before the vision tower runs; after that the host waits for nothing
        embeddings = self.model.get_input_embeddings()(input_ids)
        device = embeddings.device
        seen = self._encode_vision(
            (pixel_values, pixel_values_videos, latent_pixel_values), (image_grid_thw, video_grid_thw, latent_grid_thw), device
        )
        images, videos, frames = seen.features
        if latents is None:
            latents = self.targets(frames, latent_grid_thw, self.model.visual.spatial_merge_size)
        is_image, is_video, is_slot = (
            ids == token for token in (self.config.image_token_id, self.config.video_token_id, self.latent.tokens.latent)
        )
        for name, mask, rows in (("image", is_image, images), ("video", is_video, videos), ("latent", is_slot, latents)):
            where = mask.nonzero()[:, 0]
            if len(where) != len(rows):
                raise ValueError(f"{len(where)} {name} positions in input_ids but {len(rows)} {name} vectors")
            embeddings = embeddings.index_copy(1, queued(where, device), rows.to(embeddings.dtype)[None])

        hidden = self._decode(
            *self._part(embeddings + seen.anchor, is_image, is_image | is_video, seen.layers),
            position_ids=self.sequence.part(position_ids, dim=-1),
            packing=packing,
        )
        states = self.sequence.whole(hidden, dim=1)[0].index_select(0, packing.states)
        before, said = input_ids[0].index_select(0, packing.states), input_ids[0, packing.asked :]
        slots = is_slot[packing.asked :].nonzero()[:, 0]
        if len(slots) != len(latents):
            raise ValueError("a <|latent|> stands in a prompt; only answers have latents")
        log_probs, entropy = self.lm_head(states, before, said, slots, temperature, return_entropy)
        feeding = states.index_select(0, queued(slots, device))
        return LatentOutput(
            log_probs=log_probs,
            latent_term=self.objective(feeding, latents),
            entropy=entropy,
            latent_divergence=None if reference_states is None else self.divergence(feeding, reference_states),
            latent_states=feeding if return_latent_states else None,
            latent_targets=latents if return_latent_states else None,
        )

    def _part(
        self, embeddings: Tensor, is_image: Tensor, is_visual: Tensor, layers: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cuts the language model's inputs to this rank's part of the sequence, and sorts the rows of ``layers``, which have
        images before videos, by position. The masks ``[T]`` are on the host."""
        device, of_visual = embeddings.device, is_image[is_visual]
        order = torch.where(of_visual, of_visual.cumsum(0) - 1, of_visual.sum() + (~of_visual).cumsum(0) - 1)
        row = torch.zeros(len(is_visual), dtype=torch.int64).masked_scatter(is_visual, order)
        here, row = (self.sequence.part(each, dim=0) for each in (is_visual, row))
        rows = queued(row[here], device)
        chosen = [layer.index_select(0, rows) for layer in layers]
        return self.sequence.part(embeddings, dim=1), queued(here, device)[None], chosen

    def _encode_vision(
        self, pixels: tuple[Tensor | None, ...], grids: tuple[Tensor | None, ...], device: torch.device
    ) -> VisionFeatures:
        """Encodes images, videos and future frames in one call of the vision tower, even if there are none.

        Under FSDP a call is a collective: ranks with different modalities would otherwise wait for each other forever.
        """
        tower = self.model.visual
        merged = tower.spatial_merge_size**2
        counts = [0 if grid is None else int(grid.prod(-1).sum()) // merged for grid in grids]
        present = [(pixel, grid) for pixel, grid in zip(pixels, grids, strict=True) if pixel is not None]
        if not present:
            vision, side = self.config.vision_config, tower.spatial_merge_size
            patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            present = [(torch.zeros(merged, patch, device=device), torch.tensor([[1, side, side]], device=device))]
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            pixel, grid = (torch.cat(parts) for parts in zip(*present, strict=True))
            output = tower(pixel.to(tower.dtype), grid_thw=grid)
        features, layers = output.pooler_output, self._layers(output)
        # Zero, but part of the graph: every rank has a gradient for every vision parameter, with or without pictures.
        anchor = 0.0 * (features.sum() + sum(layer.sum() for layer in layers))
        observed = counts[0] + counts[1]
        return VisionFeatures(
            features=features[: sum(counts)].split(counts),
            layers=[layer[:observed] for layer in layers] if observed else [],
            anchor=anchor,
        )
