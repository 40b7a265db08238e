"""Turns rows of stage 1 into token sequences whose latents are the future frames (paper section 2)."""

from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import processor_inputs
from future_l1_verl.data.reader import read
from future_l1_verl.data.rows import Row, RowError
from future_l1_verl.data.skipped import Skipped, Usable
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LATENT, LATENT_END, LATENT_START, LatentTokens
from future_l1_verl.modeling.targets import target_pixels
from future_l1_verl.sft.conversations import Conversation, conversation
from future_l1_verl.training.checks import files, limit

END_OF_TURN = "<|im_end|>"


class LatentSFTDataset(Usable, Dataset):
    """verl's dataset interface (``data.custom_cls``). An item is one sequence, unpadded:

    ``input_ids``, ``loss_mask``: int64 ``[T]``; the mask is 1 on the answer without its latents, and on the decisions to
    continue a span if ``supervise_decisions``.
    ``position_ids``: int64 ``[4, T]``, text and M-RoPE. ``multi_modal_inputs``: the observed frames, and the future frames as
    ``latent_pixel_values`` and ``latent_grid_thw``.

    Clips are decoded when they are needed, in the loader's workers. A row that cannot become tensors then (its clip, its
    pictures, its length) is listed in the manifest and replaced by the next one, so that batches stay full. Raises RowError
    if the share of such rows exceeds ``max_bad_rate``.
    """

    def __init__(
        self,
        parquet_files: str | list[str],
        tokenizer: Any,
        config: DictConfig,
        processor: Any,
        max_samples: int = -1,
    ) -> None:
        self.skipped = Skipped(config.manifest, config.max_bad_rate)
        rows = read(files(parquet_files), config.videos, limit(max_samples), require=Row.require_response)
        self.rows = self.skipped.usable(rows)
        self.config = config
        self.processor = processor
        self.tokenizer = tokenizer
        self.tokens = LatentTokens.from_tokenizer(tokenizer)
        self.clips = Clips(config.cache_dir)

    def item(self, row: Row) -> dict[str, Any]:
        config = self.config
        talk = conversation(row, config.system_prompt, config.observed, config.video_frames, self.clips, config.text_only)
        seen = processor_inputs(self.processor, talk.prompt)
        prompt_ids = seen.pop("input_ids")[0]
        response_ids = torch.tensor(self.tokenizer.encode(self._response(talk), add_special_tokens=False))
        input_ids = torch.cat([prompt_ids, response_ids])
        if len(input_ids) > config.max_length:
            raise RowError(f"too long: {len(input_ids)} tokens, data.max_length is {config.max_length}")
        pixels = {key: value for key, value in seen.items() if key.startswith(("pixel_values", "image_grid", "video_grid"))}
        return {
            "input_ids": input_ids,
            "position_ids": self._position_ids(input_ids, pixels),
            "loss_mask": torch.cat([torch.zeros_like(prompt_ids), self._supervised(response_ids)]),
            "multi_modal_inputs": pixels | self._future(talk.future),
        }

    def _supervised(self, response_ids: Tensor) -> Tensor:
        """Returns int64 ``[L]``: 1 on text and control tokens, and on latents after a decision if decisions are supervised."""
        layout = response_layout(response_ids, self.tokens, self.config.max_latents)
        wanted = ~layout.slots
        if self.config.supervise_decisions:
            wanted |= layout.roles == Role.LATENT
        return wanted.long()

    def _future(self, images: list[Image.Image]) -> dict[str, Tensor]:
        """Returns ``latent_pixel_values`` and ``latent_grid_thw`` of the future frames."""
        if not images:
            return {}
        config = self.config
        pixels, grid = target_pixels(images, self.processor.image_processor, config.max_latents, config.targets == "resize")
        return {"latent_pixel_values": pixels, "latent_grid_thw": grid}

    def _response(self, talk: Conversation) -> str:
        """Returns the answer turn with a span of ``max_latents`` for each future frame."""
        span = LATENT_START + LATENT * self.config.max_latents + LATENT_END
        return span.join(talk.said) + END_OF_TURN

    def _position_ids(self, input_ids: Tensor, pixels: dict[str, Tensor]) -> Tensor:
        """Computes them as verl's agent loop does (agent_loop.py); verl's ``hf_processor`` binds ``get_rope_index``."""
        kinds = torch.zeros_like(input_ids)
        kinds[input_ids == self.processor.image_token_id] = 1
        kinds[input_ids == self.processor.video_token_id] = 2
        text = torch.arange(len(input_ids))[None]
        vision, _ = self.processor.get_rope_index(
            input_ids=input_ids[None],
            attention_mask=torch.ones_like(input_ids)[None],
            image_grid_thw=pixels.get("image_grid_thw"),
            video_grid_thw=pixels.get("video_grid_thw"),
            mm_token_type_ids=kinds[None],
        )
        return torch.cat([text, vision[:, 0]])
