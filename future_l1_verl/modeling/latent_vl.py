"""Latents going into a Qwen-VL forward, and a per-slot objective coming out: what all backbones share.

The classes add no parameter: `backbones.adopt` gives one to an instance of the stock model, so checkpoints stay plain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from future_l1_verl.latents.likelihood import log_not
from future_l1_verl.latents.spans import feeding_positions
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.targets import Targets

Objective = Callable[[Tensor, Tensor], Tensor]
"""``(h [K, H], z [K, H]) -> [K]`` in fp32 at least: a number per slot from the state that feeds it and a row of its own."""


@dataclass
class LatentOutput(ModelOutput):
    """Logits ``[B, T, V]``, and what slots contribute.

    ``log_go_on``: fp32 ``[B, T]``; entry p is log(1 - p(end)) where a slot follows at p + 1, 0 elsewhere. ``latent_term`` and
    ``latent_divergence``, of that shape: the objective and the divergence of that slot. ``latent_states``: ``[K, H]``, the
    hidden state that feeds each slot, row by row; under Ulysses those of other ranks are 0. ``latent_targets``: ``[K, H]``,
    what is in the slots, returned along with the states.
    """

    logits: Tensor
    log_go_on: Tensor | None = None
    latent_term: Tensor | None = None
    latent_divergence: Tensor | None = None
    latent_states: Tensor | None = None
    latent_targets: Tensor | None = None


@dataclass
class Seen:
    """What the vision tower made of images, videos and future frames."""

    features: tuple[Tensor, Tensor, Tensor]  # [N, H] each, in that order
    layers: list[Tensor]  # per deepstack layer [images + videos, H]; future frames have none: latents carry no deepstack
    anchor: Tensor  # scalar 0


class LatentVL(nn.Module):
    """Mixed into a vision-language model of transformers, whose ``<|latent|>`` positions then take latents as embeddings.

    A backbone says what its vision tower and its language model have of their own: `MERGERS`, `_layers` and `_decode`.
    """

    MERGERS: ClassVar[tuple[str, ...]]  # the tower's submodules that turn its features into embeddings

    latent: LatentSettings
    objective: Objective
    divergence: Objective | None
    targets: Targets
    spans: bool
    local_part: Callable[[Tensor], Tensor]

    def freeze(self, tower: bool, merger: bool) -> None:
        """Takes the gradients of the vision tower's own parameters, of its mergers', or of both."""
        for name, parameter in self.model.visual.named_parameters():
            if merger if name.split(".")[0] in self.MERGERS else tower:
                parameter.requires_grad_(False)

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        """Of the tower's output, the features ``[N, H]`` of each layer that go into the language model's layers as well."""
        raise NotImplementedError

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: Tensor | None) -> Tensor:
        """Last hidden states ``[B, T, H]``; ``layers`` ``[visual positions, H]`` are empty where nothing is seen."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        latents: Tensor | None = None,
        latent_pixel_values: Tensor | None = None,
        latent_grid_thw: Tensor | None = None,
        reference_states: Tensor | None = None,
        return_latent_states: bool = False,
        temperature: float = 1.0,
        use_cache: bool = False,
        **ignored: object,
    ) -> LatentOutput:
        """``input_ids`` is ``[B, T]``; slots are its ``<|latent|>`` positions.

        Latents come either as vectors ``latents [K, H]`` (one per slot, row by row) or as future frames
        ``latent_pixel_values`` with ``latent_grid_thw``, of whose merged vision features `Targets` makes them, detached (paper
        section 2). ``reference_states [K, H]`` are another model's `LatentOutput.latent_states` of the same rows;
        ``temperature`` is that of the decisions (logits are returned as they are). Raises ValueError if slots and latents, or
        placeholders and features, differ in number.
        """
        embeddings = self.model.get_input_embeddings()(input_ids)
        seen = self._see(
            (pixel_values, pixel_values_videos, latent_pixel_values), (image_grid_thw, video_grid_thw, latent_grid_thw)
        )
        images, videos, frames = seen.features
        if latents is None:
            latents = self.targets(frames, latent_grid_thw, self.model.visual.spatial_merge_size)
        slots = input_ids == self.latent.tokens.latent
        is_image = input_ids == self.config.image_token_id
        is_video = input_ids == self.config.video_token_id
        for name, mask, rows in (("image", is_image, images), ("video", is_video, videos), ("latent", slots, latents)):
            if int(mask.sum()) != len(rows):
                raise ValueError(f"{int(mask.sum())} {name} positions in input_ids but {len(rows)} {name} vectors")
            embeddings = embeddings.masked_scatter(mask[..., None], rows.to(embeddings.dtype))

        visual = is_image | is_video
        layers = [_in_order_of_positions(layer, is_image[visual], len(images)) for layer in seen.layers]
        hidden = self._decode(
            embeddings + seen.anchor, visual, layers, attention_mask=attention_mask, position_ids=position_ids
        )
        logits = self.lm_head(hidden)
        self._forbid_unsayable(logits, self.local_part(input_ids))
        at_slots = _Slots(slots, self.local_part)
        output = LatentOutput(
            logits=logits,
            log_go_on=at_slots.log_go_on(logits, self.latent.tokens.end, temperature),
            latent_term=at_slots.compare(self.objective, hidden, latents),
        )
        if reference_states is not None:
            output.latent_divergence = at_slots.compare(self.divergence, hidden, reference_states)
        if return_latent_states:
            output.latent_states, output.latent_targets = at_slots.states(hidden), latents
        return output

    def _see(self, pixels: tuple[Tensor | None, ...], grids: tuple[Tensor | None, ...]) -> Seen:
        """Encodes images, videos and future frames in one call of the vision tower, and calls it even for nothing.

        Under FSDP a call is a collective: ranks that hold different modalities would otherwise wait for each other for ever.
        """
        tower = self.model.visual
        merged = tower.spatial_merge_size**2
        present = [(pixel, grid) for pixel, grid in zip(pixels, grids, strict=True) if pixel is not None]
        if not present:
            vision, side = self.config.vision_config, tower.spatial_merge_size
            patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            device = self.get_input_embeddings().weight.device
            present = [(torch.zeros(merged, patch, device=device), torch.tensor([[1, side, side]], device=device))]
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            pixel, grid = (torch.cat(parts) for parts in zip(*present, strict=True))
            output = tower(pixel.to(tower.dtype), grid_thw=grid)
        features, layers = output.pooler_output, self._layers(output)
        counts = [0 if grid is None else int(grid.prod(-1).sum()) // merged for grid in grids]
        # Zero, but part of the graph: every rank has a gradient for every vision parameter, whatever it saw.
        anchor = 0.0 * (features.sum() + sum(layer.sum() for layer in layers))
        observed = counts[0] + counts[1]
        return Seen(
            features=features[: sum(counts)].split(counts),
            layers=[layer[:observed] for layer in layers] if observed else [],
            anchor=anchor,
        )

    def _forbid_unsayable(self, logits: Tensor, ids: Tensor) -> None:
        """What the decoder never samples has no probability here: ``<|latent|>`` outside a span (design.md), the start token
        of a model without spans, and placeholders of images and videos (verl bans them, vllm_rollout/utils.py:108).

        A large finite number, not -inf: the entropy would be 0 * inf.
        """
        tokens, never = self.latent.tokens, torch.finfo(logits.dtype).min / 1024
        outside = (ids != tokens.start) & (ids != tokens.latent)
        logits[..., tokens.latent] = logits[..., tokens.latent].masked_fill(outside, never)
        banned = [self.config.image_token_id, self.config.video_token_id] + ([] if self.spans else [tokens.start])
        logits[..., banned] = never


class _Slots:
    """Where this rank's hidden states feed slots, and which slots of the whole batch those are."""

    def __init__(self, slots: Tensor, local_part: Callable[[Tensor], Tensor]) -> None:
        feeding = feeding_positions(slots)
        order = (feeding.flatten().cumsum(0) - 1).view_as(feeding)
        self.here = local_part(feeding)
        self.order = local_part(order)[self.here]
        self.total = int(slots.sum())

    def compare(self, function: Objective, hidden: Tensor, rows: Tensor) -> Tensor:
        """``[B, T]``: ``function`` of the state that feeds a slot and of the slot's row, at the feeding positions."""
        values = function(hidden[self.here], rows[self.order])
        return values.new_zeros(hidden.shape[:2]).masked_scatter(self.here, values)

    def log_go_on(self, logits: Tensor, end: int, temperature: float) -> Tensor:
        """``[B, T]``, from logits ``[B, T, V]``; only the rows before slots are normalised."""
        rows = logits[self.here]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32)) / temperature
        values = log_not(rows.log_softmax(-1), end)
        return values.new_zeros(logits.shape[:2]).masked_scatter(self.here, values)

    def states(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros(self.total, hidden.shape[-1]).index_copy(0, self.order, hidden[self.here])


def _in_order_of_positions(layer: Tensor, is_image: Tensor, images: int) -> Tensor:
    """``[images first, then videos; H]`` to the order of the visual positions, of which ``is_image`` says the kind."""
    ordered = torch.empty_like(layer)
    ordered[is_image], ordered[~is_image] = layer[:images], layer[images:]
    return ordered
