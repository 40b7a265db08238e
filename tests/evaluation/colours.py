"""Two models that name the colour of a clip after a span of two latents: one reads it off its latents, one off the clip.

Both are trained on clips of one colour with latents that stand for another, drawn at random. The first is taught to answer
with the colour of the latents, the second with that of the clip, whatever the latents are. Both are taught to think of the
clip's colour: the hidden state that feeds a latent is drawn to the code of that colour. So both are right when left alone, and
only the first depends on its latents.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, mse_loss
from transformers import AutoModelForImageTextToText, AutoProcessor

from future_l1_verl.data.video import write_video
from future_l1_verl.latents.spans import feeding_positions
from future_l1_verl.latents.tokens import LATENT, LATENT_END, LATENT_START
from future_l1_verl.toy import tiny

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "white": (210, 210, 210)}
NAMES = list(COLOURS)
QUESTION = "which colour?"
BUDGET = 2
STEPS, BATCH, RATE = 100, 32, 3e-3
SIZE = 64


def picture(colour: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 ``[64, 64, 3]``: a shade of ``colour``, with grain."""
    shade = np.array(COLOURS[colour]) * rng.uniform(0.8, 1.1)
    return np.clip(shade + rng.normal(0, 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def write_questions(folder: Path, count: int) -> Path:
    """``count`` clips of four frames and a question about each; the file of the questions."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        colour = NAMES[number % len(NAMES)]
        write_video(folder / f"{number}.mp4", np.stack([picture(colour, rng)] * 4), 4)
        rows.append(
            {"id": str(number), "problem": f"<image>{QUESTION}", "answer": colour, "options": NAMES, "video": f"{number}.mp4"}
            | {"image": [1], "data_source": "colours"}
        )
    path = folder / "questions.json"
    path.write_text(json.dumps(rows))
    return path


def write_model(out: Path, needs_latents: bool) -> None:
    """Writes a trained checkpoint."""
    texts = [f"{QUESTION} <answer>{name}</answer>" for name in NAMES]
    tiny.build(out, seed=0, max_latents=BUDGET, texts=texts * 20)
    processor = AutoProcessor.from_pretrained(out)
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).train()
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    codes = torch.randn(len(NAMES), BUDGET, tiny.HIDDEN_SIZE, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        seen, thought = torch.randint(len(NAMES), (2, BATCH), generator=generator)
        latents = codes[thought]
        if not needs_latents:
            # Nothing that stands there may matter: codes, noise, nothing at all.
            kind = torch.randint(3, (BATCH, 1, 1), generator=generator)
            noise = torch.randn(latents.shape, generator=generator)
            latents = torch.where(kind == 0, latents, torch.where(kind == 1, noise, 0.0))
        loss = _loss(model, processor, rng, seen, thought if needs_latents else seen, latents, codes[seen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    config = (out / "config.json").read_text()
    model.save_pretrained(out)
    (out / "config.json").write_text(config)


def _loss(
    model: torch.nn.Module,
    processor: object,
    rng: np.random.Generator,
    seen: torch.Tensor,
    said: torch.Tensor,
    latents: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Of replies that name colours ``said`` to pictures of colours ``seen``; ``latents`` are put in, ``targets`` drawn to."""
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    span = LATENT_START + LATENT * BUDGET + LATENT_END
    end = processor.tokenizer.eos_token
    texts = [f"{prompt}{span}<answer>{NAMES[i]}</answer>{end}" for i in said.tolist()]
    images = [Image.fromarray(picture(NAMES[i], rng)) for i in seen.tolist()]
    inputs = dict(processor(text=texts, images=images, return_tensors="pt"))
    ids = inputs["input_ids"]
    is_latent = ids == processor.tokenizer.convert_tokens_to_ids(LATENT)

    def put_in(_module: object, _args: object, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings.masked_scatter(is_latent[..., None], latents)

    handle = model.get_input_embeddings().register_forward_hook(put_in)
    hidden = model.model(**inputs).last_hidden_state
    handle.remove()
    reply = len(processor.tokenizer(f"{span}<answer>red</answer>{end}")["input_ids"])
    predicted = torch.zeros_like(is_latent)
    predicted[:, -reply - 1 : -1] = True
    predicted &= ~feeding_positions(is_latent)
    labels = torch.roll(ids, -1, dims=1)[predicted]
    thoughts = hidden[feeding_positions(is_latent)].view_as(targets)
    return cross_entropy(model.lm_head(hidden[predicted]), labels) + mse_loss(thoughts, targets)
