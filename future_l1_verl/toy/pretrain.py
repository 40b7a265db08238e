"""Pretrains the whole tiny checkpoint, including the vision tower, on captions.

The captions of the synthetic set describe positions and motion in each frame, and end in words that their request names. They
contain no questions or answers, so the result can see and read but has not learned the task.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import SAFE_WEIGHTS_NAME

from future_l1_verl.data.twiff import POOL, frame_pool
from future_l1_verl.data.video import probe, read_frames
from future_l1_verl.progress import Progress

CAPTIONS = "captions_train.parquet"
BATCH = 32
LEARNING_RATE = 2e-3
WARM_UP = 20
IGNORED = -100
REPORT = 20  # steps between two lines of progress


@dataclass(frozen=True)
class _Example:
    frames: list[Image.Image]
    request: str
    caption: str


def pretrain(checkpoint: Path, data: Path, steps: int, seed: int = 0, batch: int = BATCH) -> list[float]:
    """Trains ``checkpoint`` in place on the captions of the synthetic set ``data``; returns the loss of every step.

    AdamW, warm-up then cosine. The same files, steps, seed and number of torch threads give the same weights. Raises
    FileNotFoundError if ``data`` holds no captions.
    """
    examples = _load(Path(data))
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    rng = np.random.default_rng(seed)
    features: list[Tensor] = []
    model.model.visual.merger.register_forward_hook(lambda module, args, output: features.append(output))
    losses: list[float] = []
    started = time.monotonic()
    for step in range(1, steps + 1):
        chosen = rng.choice(len(examples), size=batch, replace=len(examples) < batch)
        inputs, labels = _collate([examples[index] for index in chosen], processor)
        hidden = model.model(**inputs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        # Only the captions' positions are passed to the head.
        loss = cross_entropy(model.lm_head(hidden[targets != IGNORED]), targets[targets != IGNORED])
        (loss + _log_scale(features.pop()) ** 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % REPORT == 0 or step == steps:
            mean = sum(losses[-REPORT:]) / len(losses[-REPORT:])
            print(f"pretraining: step {step}/{steps}, loss {mean:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    _replace_weights(Path(checkpoint), model)
    return losses


def _log_scale(features: Tensor) -> Tensor:
    """Returns the logarithm of the features' root mean square, which training keeps at 0.

    Without this it grows to about 8. Stage 1 regresses hidden states, of root mean square 1, on frozen features.
    """
    return features.pow(2).mean().log() / 2


def _rate(step: int, steps: int) -> float:
    """Returns the learning rate as a share of its peak: linear warm-up, then a cosine down to a tenth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))


def _load(data: Path) -> list[_Example]:
    path = data / CAPTIONS
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; make the set with `python -m data_prep.toy.synthetic --out {data}`")
    examples = []
    rows = pd.read_parquet(path)
    for video, group in Progress(rows.groupby("video", sort=False), desc="reading clips"):
        pool = read_frames(data / video, frame_pool(probe(data / video).frames))
        for image, request, caption in zip(group["image"], group["request"], group["caption"], strict=True):
            if not all(1 <= entry <= POOL for entry in image):
                raise ValueError(f"{path}: image of {video} must lie in 1..{POOL}, not {list(image)}")
            examples.append(_Example([pool[entry - 1] for entry in image], request, caption))
    return examples


def _collate(examples: list[_Example], processor: ProcessorMixin) -> tuple[dict[str, Tensor], Tensor]:
    """Returns model inputs of a right-padded batch, and labels ``[batch, length]`` that cover captions and end tokens."""
    prompts, texts = [], []
    for example in examples:
        content = [{"type": "image"} for _ in example.frames] + [{"type": "text", "text": example.request}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        prompts.append(prompt)
        texts.append(prompt + example.caption + processor.tokenizer.eos_token)
    frames = [frame for example in examples for frame in example.frames]
    inputs = dict(processor(text=texts, images=frames, padding=True, padding_side="right", return_tensors="pt"))
    captions = processor.tokenizer([e.caption + processor.tokenizer.eos_token for e in examples])["input_ids"]
    lengths = inputs["attention_mask"].sum(1).tolist()
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, (length, caption) in enumerate(zip(lengths, captions, strict=True)):
        labels[row, length - len(caption) : length] = torch.tensor(caption)
    return inputs, labels


def _replace_weights(checkpoint: Path, model: PreTrainedModel) -> None:
    """Writes the weights, under transformers' names in files, and leaves the rest of the checkpoint unchanged."""
    with TemporaryDirectory(dir=checkpoint) as folder:
        model.save_pretrained(folder)
        (Path(folder) / SAFE_WEIGHTS_NAME).replace(checkpoint / SAFE_WEIGHTS_NAME)
