"""The supported architectures, each with its differences; `install_latents` converts a model in place."""

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.utils import ModelOutput

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.attention import use_packed_attention
from future_l1_verl.modeling.head import OutputHead
from future_l1_verl.modeling.latent_vl import LatentVL, Objective, VisionFeatures
from future_l1_verl.modeling.sequence import Whole
from future_l1_verl.modeling.targets import Targets


class LatentQwen3VL(LatentVL, Qwen3VLForConditionalGeneration):
    """Qwen3-VL: features of several layers of the tower go into the first layers of the language model (deepstack)."""

    MERGERS = ("merger", "deepstack_merger_list")

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        return seen.deepstack_features

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: object) -> Tensor:
        return self.model.language_model(
            inputs_embeds=embeddings,
            visual_pos_masks=visual if layers else None,
            deepstack_visual_embeds=layers or None,
            use_cache=False,
            **inputs,
        ).last_hidden_state


class LatentQwen2_5VL(LatentVL, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL: its language model sees only the tower's last features.

    Videos are refused. transformers 5.9 and vLLM 0.24 place them differently: vLLM drops a clip's times and assumes 24 frames
    per second (`video_needs_metadata`, multimodal/parse.py), and in transformers the positions after a clip overlap it in time
    (modeling_qwen2_5_vl.py), so rollouts and actor would have different likelihoods. Frames are images.
    """

    MERGERS = ("merger",)

    def _encode_vision(
        self, pixels: tuple[Tensor | None, ...], grids: tuple[Tensor | None, ...], device: torch.device
    ) -> VisionFeatures:
        if pixels[1] is not None:
            raise ValueError("vLLM and transformers place videos of Qwen2.5-VL differently: set data.observed=frames")
        return super()._encode_vision(pixels, grids, device)

    def _layers(self, seen: ModelOutput) -> list[Tensor]:
        return []

    def _decode(self, embeddings: Tensor, visual: Tensor, layers: list[Tensor], **inputs: object) -> Tensor:
        return self.model.language_model(inputs_embeds=embeddings, use_cache=False, **inputs).last_hidden_state


BACKBONES: dict[type[nn.Module], type[LatentVL]] = {
    Qwen3VLForConditionalGeneration: LatentQwen3VL,
    Qwen2_5_VLForConditionalGeneration: LatentQwen2_5VL,
}


def install_latents(
    module: nn.Module,
    objective: Objective,
    divergence: Objective | None = None,
    spans: bool = True,
    targets: str = "resize",
    unit_targets: bool = False,
    sequence: Whole | None = None,
) -> LatentVL:
    """Makes ``module`` take latents and packed micro-batches, in place.

    ``divergence`` compares the states that feed the slots with ``reference_states``. Without ``spans`` the start token is
    impossible. ``targets`` (resize or pool) and ``unit_targets`` say how future frames become latents (`Targets`). ``sequence``
    cuts sequences over ranks. Raises TypeError for another architecture, mixtures of experts among them, and ValueError for a
    checkpoint without latent settings or an attention without a kernel for packed questions.
    """
    if type(module) not in BACKBONES:
        known = " and ".join(backbone.__name__ for backbone in BACKBONES)
        raise TypeError(f"latents are implemented for {known}, not for {type(module).__name__}")
    latent = LatentSettings.from_config(module.config)
    sequence = sequence or Whole()
    use_packed_attention(module.model.language_model, sequence)
    module.__class__ = BACKBONES[type(module)]
    # Never sampled: placeholders of images and videos (verl bans them in the rollout, vllm_rollout/utils.py), and the
    # start token of a model without spans.
    never = (module.config.image_token_id, module.config.video_token_id)
    module.lm_head.__class__ = OutputHead
    module.lm_head.tokens, module.lm_head.banned = latent.tokens, never if spans else (*never, latent.tokens.start)
    module.latent = latent
    module.objective = objective
    module.divergence = divergence
    module.targets = Targets(latent.max_latents, pool=targets == "pool", unit=unit_targets)
    module.sequence = sequence
    return module
