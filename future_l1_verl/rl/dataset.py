"""Gives verl the questions of stage 2, with the same frames as in stage 1 and evaluation."""

import asyncio
from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import vision_inputs
from future_l1_verl.data.rows import Row
from future_l1_verl.data.seeing import see
from future_l1_verl.data.skipped import Skipped, Usable
from future_l1_verl.rl.askable import askable, prompt
from future_l1_verl.training.checks import files, limit


class LatentRLDataset(Usable, RLHFDataset):
    """verl's dataset interface (``data.custom_cls``), for rows of any format (future_l1_verl/data/formats).

    Upstream (verl/utils/dataset/rl_dataset.py) reads chat-form rows through `datasets` and leaves frames to the agent loop;
    here frames follow TwiFF's pool, and a video is decoded only when its row is read. A row that cannot be asked then (its
    clip is truncated, the times of its frames make it too long) is listed in the manifest and replaced by the next one.
    """

    def __init__(
        self, data_files: str | list[str], tokenizer: Any, config: DictConfig, processor: Any = None, max_samples: int = -1
    ) -> None:
        self.config, self.processor, self.clips = config, processor, Clips()
        self.skipped = Skipped(config.manifest, config.max_bad_rate)
        self.rows = askable(files(data_files), config, processor, self.skipped, limit(max_samples))

    def item(self, row: Row) -> dict[str, Any]:
        config = self.config
        seen = see(row, self.clips, config.video_frames)
        return {
            "raw_prompt": prompt(row, seen.observed, config, self.processor),
            "data_source": row.data_source,
            "split": row.category or row.data_source,
            "reward_model": {"style": "rule", "ground_truth": row.truth},
            "question": row.question,
            "options": list(row.options),
            "extra_info": {"index": row.number},
            "index": row.number,
            # verl needs one tensor in a batch (rl_dataset.py, __getitem__).
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }

    @classmethod
    async def process_vision_info(cls, messages: list[dict], image_patch_size: int, config: DictConfig) -> tuple:
        """Upstream (rl_dataset.py) assumes that the frames of a video are evenly spaced; here they have their real times."""
        return await asyncio.get_running_loop().run_in_executor(None, vision_inputs, messages, image_patch_size)
