"""Questions of stage 2 as verl expects them, with the frames that stage 1 and evaluation show as well."""

from __future__ import annotations

import asyncio
from typing import Any

import torch
from omegaconf import DictConfig
from verl.utils.dataset.rl_dataset import RLHFDataset

from future_l1_verl.data.prompts import messages, vision_inputs
from future_l1_verl.data.rows import RL_COLUMNS, frames, read_rows, split_of
from future_l1_verl.sft.checks import files


class LatentRLDataset(RLHFDataset):
    """verl's dataset interface (``data.custom_cls``), for rows of ``future_l1_verl.data.rows``.

    Upstream (verl/utils/dataset/rl_dataset.py) reads chat-form rows through `datasets` and leaves frames to the agent loop;
    here frames follow TwiFF's pool, and videos are never decoded before their turn comes.
    """

    def __init__(
        self, data_files: str | list[str], tokenizer: Any, config: DictConfig, processor: Any = None, max_samples: int = -1
    ) -> None:
        rows = [row for file in files(data_files) for row in read_rows(file, RL_COLUMNS)]
        self.rows = rows[:max_samples] if max_samples > 0 else rows
        self.system_prompt, self.observed = config.system_prompt, config.observed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {
            "raw_prompt": messages(row, row["problem"], *frames(row, "image"), self.system_prompt, self.observed),
            "data_source": row["data_source"],
            "split": split_of(row),
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "question": row["problem"],
            "options": list(row.get("options") or []),
            "extra_info": {"index": index},
            "index": index,
            # verl needs one tensor in a batch (rl_dataset.py, __getitem__).
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }

    @classmethod
    async def process_vision_info(cls, messages: list[dict], image_patch_size: int, config: DictConfig) -> tuple:
        """Upstream (rl_dataset.py:414) takes the frames of a video for evenly spaced; ours know their times."""
        return await asyncio.get_running_loop().run_in_executor(None, vision_inputs, messages, image_patch_size)
