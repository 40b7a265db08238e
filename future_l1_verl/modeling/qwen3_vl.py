"""Latents going into a Qwen3-VL forward, and a per-slot objective coming out.

The class adds no parameter: an instance of the stock model is given it by `adopt`, so checkpoints stay plain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLCausalLMOutputWithPast,
    Qwen3VLForConditionalGeneration,
)

from future_l1_verl.latents.likelihood import log_not
from future_l1_verl.latents.spans import feeding_positions
from future_l1_verl.latents.tokens import LatentSettings

Objective = Callable[[Tensor, Tensor], Tensor]
"""``(h [K, H], z [K, H]) -> [K]`` in fp32 at least: a number per slot from the state that feeds it and a row of its own."""


@dataclass
class LatentOutput(Qwen3VLCausalLMOutputWithPast):
    """What slots contribute.

    ``log_go_on``: fp32 ``[B, T]``; entry p is log(1 - p(end)) where a slot follows at p + 1, 0 elsewhere. ``latent_term`` and
    ``latent_divergence``, of that shape: the objective and the divergence of that slot. ``latent_states``: ``[K, H]``, the
    hidden state that feeds each slot, row by row; under Ulysses those of other ranks are 0.
    """

    log_go_on: Tensor | None = None
    latent_term: Tensor | None = None
    latent_divergence: Tensor | None = None
    latent_states: Tensor | None = None


@dataclass
class _Seen:
    """What the vision tower made of images, videos and future frames."""

    features: tuple[Tensor, Tensor, Tensor]  # [N, H] each, in that order
    deepstack: list[Tensor]  # per layer [images + videos, H]; future frames have none: latents carry no deepstack
    anchor: Tensor  # scalar 0


class LatentQwen3VL(Qwen3VLForConditionalGeneration):
    """Qwen3-VL whose ``<|latent|>`` positions take latents as input embeddings."""

    latent: LatentSettings
    objective: Objective
    divergence: Objective
    spans: bool
    local_part: Callable[[Tensor], Tensor]

    @classmethod
    def adopt(
        cls,
        module: Qwen3VLForConditionalGeneration,
        objective: Objective,
        local_part: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        divergence: Objective | None = None,
        spans: bool = True,
    ) -> LatentQwen3VL:
        """Makes ``module`` a `LatentQwen3VL` in place.

        ``divergence`` compares the states that feed the slots with ``reference_states``. Without ``spans`` the start token is
        impossible. ``local_part`` cuts ``[B, T, ...]`` to this rank's part of the sequence (Ulysses); the language model's
        output is cut already. Raises TypeError for another architecture and ValueError for a checkpoint without latent
        settings.
        """
        if type(module) is not Qwen3VLForConditionalGeneration:
            raise TypeError(f"latents are implemented for Qwen3-VL, not for {type(module).__name__}")
        module.__class__ = cls
        module.latent = LatentSettings.from_config(module.config)
        module.objective = objective
        module.divergence = divergence
        module.spans = spans
        module.local_part = local_part
        return module

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
        ``latent_pixel_values`` with ``latent_grid_thw``, whose merged vision features then are the latents (paper section 2),
        detached. ``reference_states [K, H]`` are another model's `LatentOutput.latent_states` of the same rows;
        ``temperature`` is that of the decisions (logits are returned as they are). Raises ValueError if slots and latents, or
        placeholders and features, differ in number.
        """
        embeddings = self.model.get_input_embeddings()(input_ids)
        seen = self._see(
            (pixel_values, pixel_values_videos, latent_pixel_values), (image_grid_thw, video_grid_thw, latent_grid_thw)
        )
        images, videos, frames = seen.features
        if latents is None:
            latents = frames.detach()
        slots = input_ids == self.latent.tokens.latent
        is_image = input_ids == self.config.image_token_id
        is_video = input_ids == self.config.video_token_id
        for name, mask, rows in (("image", is_image, images), ("video", is_video, videos), ("latent", slots, latents)):
            if int(mask.sum()) != len(rows):
                raise ValueError(f"{int(mask.sum())} {name} positions in input_ids but {len(rows)} {name} vectors")
            embeddings = embeddings.masked_scatter(mask[..., None], rows.to(embeddings.dtype))

        visual = is_image | is_video
        deepstack = [_in_order_of_positions(layer, is_image[visual], len(images)) for layer in seen.deepstack]
        hidden = self.model.language_model(
            inputs_embeds=embeddings + seen.anchor,
            attention_mask=attention_mask,
            position_ids=position_ids,
            visual_pos_masks=visual if deepstack else None,
            deepstack_visual_embeds=deepstack or None,
            use_cache=False,
        ).last_hidden_state
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
            output.latent_states = at_slots.states(hidden)
        return output

    def _see(self, pixels: tuple[Tensor | None, ...], grids: tuple[Tensor | None, ...]) -> _Seen:
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
        features, layers = output.pooler_output, output.deepstack_features
        counts = [0 if grid is None else int(grid.prod(-1).sum()) // merged for grid in grids]
        # Zero, but part of the graph: every rank has a gradient for every vision parameter, whatever it saw.
        anchor = 0.0 * (features.sum() + sum(layer.sum() for layer in layers))
        observed = counts[0] + counts[1]
        return _Seen(
            features=features[: sum(counts)].split(counts),
            deepstack=[layer[:observed] for layer in layers] if observed else [],
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
