"""The architectures that take latents, each by what it does differently, and how an instance of one comes to take them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.utils import ModelOutput

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.latent_vl import LatentVL, Objective, Seen
from future_l1_verl.modeling.targets import Targets


class LatentQwen3VL(LatentVL, Qwen3VLForConditionalGeneration):
    """Features of several layers of the tower go into the first layers of the language model (deepstack)."""

    MERGERS = ("merger", "deepstack_merger_list")

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        return seen.deepstack_features

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: Tensor | None) -> Tensor:
        return self.model.language_model(
            inputs_embeds=embeddings,
            visual_pos_masks=visual if layers else None,
            deepstack_visual_embeds=layers or None,
            use_cache=False,
            **inputs,
        ).last_hidden_state


class LatentQwen2_5VL(LatentVL, Qwen2_5_VLForConditionalGeneration):
    """Its language model sees the tower's last features alone.

    Videos are refused. transformers 5.9 and vLLM 0.24 place them differently: vLLM drops a clip's times and takes it for 24
    frames a second (`video_needs_metadata`, multimodal/parse.py), and transformers lets what follows a clip overlap it in time
    (modeling_qwen2_5_vl.py:1077), so that rollouts and actor would not have the same likelihoods. Frames are images.
    """

    MERGERS = ("merger",)

    def _see(self, pixels: tuple[Tensor | None, ...], grids: tuple[Tensor | None, ...]) -> Seen:
        if pixels[1] is not None:
            raise ValueError("vLLM and transformers place videos of Qwen2.5-VL differently: set data.observed=frames")
        return super()._see(pixels, grids)

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        return []

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: Tensor | None) -> Tensor:
        return self.model.language_model(inputs_embeds=embeddings, use_cache=False, **inputs).last_hidden_state


BACKBONES: dict[type[nn.Module], type[LatentVL]] = {
    Qwen3VLForConditionalGeneration: LatentQwen3VL,
    Qwen2_5_VLForConditionalGeneration: LatentQwen2_5VL,
}


def adopt(
    module: nn.Module,
    objective: Objective,
    local_part: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    divergence: Objective | None = None,
    spans: bool = True,
    pool_targets: bool = False,
    unit_targets: bool = False,
) -> LatentVL:
    """Makes ``module`` take latents, in place.

    ``divergence`` compares the states that feed the slots with ``reference_states``. Without ``spans`` the start token is
    impossible. ``pool_targets`` and ``unit_targets`` say how future frames become latents (`Targets`). ``local_part`` cuts
    ``[B, T, ...]`` to this rank's part of the sequence (Ulysses); the language model's output is cut already. Raises TypeError
    for another architecture, mixtures of experts among them, and ValueError for a checkpoint without latent settings.
    """
    if type(module) not in BACKBONES:
        known = " and ".join(backbone.__name__ for backbone in BACKBONES)
        raise TypeError(f"latents are implemented for {known}, not for {type(module).__name__}")
    latent = LatentSettings.from_config(module.config)
    module.__class__ = BACKBONES[type(module)]
    module.latent = latent
    module.objective = objective
    module.divergence = divergence
    module.targets = Targets(latent.max_latents, pool_targets, unit_targets)
    module.spans = spans
    module.local_part = local_part
    return module
