"""Rows in TwiFF form as token sequences whose latents are the future frames (paper section 2)."""

from __future__ import annotations

import re
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from qwen_vl_utils import process_vision_info
from torch import Tensor
from torch.utils.data import Dataset

from data_prep.rows import SFT_COLUMNS, RowError, frames, messages, read_rows, turn
from future_l1_verl.latents.spans import Role, response_layout
from future_l1_verl.latents.tokens import LATENT, LATENT_END, LATENT_START, LatentTokens
from future_l1_verl.modeling.grid import latent_grid
from future_l1_verl.sft.checks import files

END_OF_TURN = "<|im_end|>"
_THOUGHT_MARKER = re.compile(r"THOUGHT \d+:\s*")


class LatentSFTDataset(Dataset):
    """verl's dataset interface (``data.custom_cls``). An item is one sequence, unpadded:

    ``input_ids``, ``loss_mask``: int64 ``[T]``; the mask is 1 on what the model is to say, latents excepted, and on the
    decisions to go on with a span if ``supervise_decisions``.
    ``position_ids``: int64 ``[4, T]``, text and M-RoPE. ``multi_modal_inputs``: observed frames, and the future frames as
    ``latent_pixel_values`` and ``latent_grid_thw``.
    """

    def __init__(
        self,
        parquet_files: str | list[str],
        tokenizer: Any,
        config: DictConfig,
        processor: Any,
        max_samples: int = -1,
    ) -> None:
        rows = [row for file in files(parquet_files) for row in read_rows(file, SFT_COLUMNS)]
        self.rows = rows[:max_samples] if max_samples > 0 else rows
        self.processor = processor
        self.tokenizer = tokenizer
        self.tokens = LatentTokens.from_tokenizer(tokenizer)
        self.max_latents = config.max_latents
        self.max_length = config.max_length
        self.system_prompt = config.system_prompt
        self.supervise_decisions = config.supervise_decisions

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        observed, later = frames(row, "image", "reasoning_image")
        chat = messages(row, turn(row, "human"), observed, self.system_prompt)
        images, _ = process_vision_info(chat, image_patch_size=self.processor.image_processor.patch_size)
        prompt = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        seen = self.processor(text=[prompt], images=images, return_tensors="pt")
        future = self._future(later)

        prompt_ids = seen["input_ids"][0]
        response_ids = torch.tensor(self.tokenizer.encode(self._response(row, future), add_special_tokens=False))
        input_ids = torch.cat([prompt_ids, response_ids])
        if len(input_ids) > self.max_length:
            raise RowError(f"{row['source']}: {len(input_ids)} tokens, data.max_length is {self.max_length}")
        supervised = torch.cat([torch.zeros_like(prompt_ids), self._supervised(response_ids)])
        return {
            "input_ids": input_ids,
            "position_ids": self._position_ids(input_ids, seen),
            "loss_mask": supervised,
            "multi_modal_inputs": {
                "pixel_values": seen["pixel_values"],
                "image_grid_thw": seen["image_grid_thw"],
                **{f"latent_{key.removeprefix('image_')}": value for key, value in future.items()},
            },
        }

    def _supervised(self, response_ids: Tensor) -> Tensor:
        """int64 ``[L]``: 1 on text and control tokens, and on latents that follow a decision if decisions are supervised."""
        layout = response_layout(response_ids, self.tokens, self.max_latents)
        wanted = ~layout.slots
        if self.supervise_decisions:
            wanted |= layout.roles == Role.LATENT
        return wanted.long()

    def _future(self, images: list[Image.Image]) -> dict[str, Tensor]:
        """``pixel_values`` and ``image_grid_thw`` of the future frames, each shrunk to as many embeddings as a span holds."""
        image_processor = self.processor.image_processor
        unit = image_processor.patch_size * image_processor.merge_size
        shrunk = []
        for image in images:
            rows, columns = latent_grid(*image.size, self.max_latents)
            shrunk.append(image.resize((columns * unit, rows * unit), Image.Resampling.BICUBIC))
        features = image_processor(images=shrunk, do_resize=False, return_tensors="pt")
        return {key: features[key] for key in ("pixel_values", "image_grid_thw")}

    def _response(self, row: dict[str, Any], future: dict[str, Tensor]) -> str:
        """The answer turn with a latent span for each ``<image>``."""
        text = _THOUGHT_MARKER.sub("", turn(row, "gpt"))
        first, *rest = text.split("<image>")
        lengths = (future["image_grid_thw"].prod(-1) // self.processor.image_processor.merge_size**2).tolist()
        if len(rest) != len(lengths):
            raise RowError(f"{row['source']}: {len(rest)} <image> in the answer but {len(lengths)} in reasoning_image")
        spans = [LATENT_START + LATENT * length + LATENT_END for length in lengths]
        return first + "".join(span + part for span, part in zip(spans, rest, strict=True)) + END_OF_TURN

    def _position_ids(self, input_ids: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """As verl's agent loop computes them (agent_loop.py:920); ``get_rope_index`` is bound by verl's ``hf_processor``."""
        text = torch.arange(len(input_ids))[None]
        vision, _ = self.processor.get_rope_index(
            input_ids=input_ids[None],
            attention_mask=torch.ones_like(input_ids)[None],
            image_grid_thw=seen["image_grid_thw"],
            mm_token_type_ids=(input_ids == self.processor.image_token_id).long()[None],
        )
        return torch.cat([text, vision[:, 0]])
