"""``python benchmarks/shared_prompt.py --out FILE.json --figure FILE.png``: what it saves to compute a question once.

The training passes of a set of questions with n answers each: log-probs before the update (forward), those of the reference
(forward), and the update (forward and backward), in one micro-batch, without checkpointing, in three ways:

``verl's rows``: each answer is a row with its prompt, rows are padded to one length, the vision tower sees the pixels of each
row; logits of all tokens, of which verl's own function makes log-probs. The model is transformers' own, with sdpa.
``rows, answers' logits``: the same rows, but the output head reads the states before the answers' tokens alone.
``shared prompt``: our model on the packed questions (modeling/packing.py).

The model is the tiny Qwen3-VL widened until arithmetic dominates (hidden size 256, 6 layers, vocabulary 32,000, fp32, random
weights); prompts are its processor's, of random frames; answers have latents. Rounds alternate. All ways are compared on three
passes; ``two passes`` is ours against verl's three, for where a batch is one update: the log-probs before it are then its own,
and our trainer makes no pass for them (rl/trainer.py). Memory is the peak of an update above what model and questions take, on
a CPU in a process of its own (peak.py). All ways must give the same log-probs and gradients, or the benchmark fails.
gpu/phases/shared_question.py measures cells of another model on a GPU.

Prints a table, and writes ``--out`` after each cell; cells that are there already, of as many rounds and questions, are kept.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from peak import peak
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import alternate, ratio, shown, spread
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, PreTrainedModel
from verl.utils.torch_functional import logprobs_from_logits

from data_prep.toy.synthetic.words import sentences
from future_l1_verl.latents.likelihood import Family
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.backbones import install_latents
from future_l1_verl.modeling.packing import Packing
from future_l1_verl.toy import tiny

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY = 256, 768, 6, 32_000
FIRST_WORD = 1000  # from which on all ids are text
A_SPAN_EVERY = 90  # tokens of an answer
VMF = Family("vmf", kappa=1.0)
LOGITS_ALIVE = 3  # of all tokens, in verl's update: themselves, and two parts of their gradient
CLOSE = 1e-4  # in fp32; in bf16 the ways agree as far as their rounding does
ON_GPU = torch.cuda.is_available()
PASSES = ("old log-probs", "reference", "update")
ROWS, ANSWERS, SHARED = "verl's rows", "rows, answers' logits", "shared prompt"


@dataclass(frozen=True)
class Size:
    """``frames`` squares of ``side`` pixels make nearly all of a prompt; answers have about ``answer`` tokens."""

    frames: int
    side: int
    answer: int
    questions: int


SIZES = {
    "60/30": Size(8, 64, 30, 16),
    "400/60": Size(8, 224, 60, 4),
    "1600/100": Size(8, 448, 100, 1),
    "3200/195": Size(16, 448, 195, 1),
}  # fmt: skip
GOALS = {
    ("1600/100 n=8", ROWS): {"seconds": 8.0, "memory": 3.0},
    ("1600/100 n=8", ANSWERS): {"seconds": 4.0},
    **{(f"60/30 n={n}", ROWS): {"seconds": 3.0} for n in (4, 8, 16)},
}
"""How many times ours they are to take at least, by cell and way."""


@dataclass(frozen=True)
class Question:
    """``rows``: ids ``[prompt + answer]``, by answer, whose ``positions`` are ``[4, prompt + answer]``; ``latents [K, H]``."""

    prompt: int
    rows: list[Tensor]
    positions: list[Tensor]
    latents: list[Tensor]
    pixels: Tensor
    grid: Tensor


@dataclass(frozen=True)
class Model:
    """A checkpoint's config and processor; the weights are random, in ``dtype``."""

    checkpoint: Path
    config: PreTrainedConfig
    dtype: torch.dtype = torch.float32


def widened(checkpoint: Path) -> Model:
    """Returns the tiny checkpoint's model, wide enough that arithmetic dominates."""
    config = AutoConfig.from_pretrained(checkpoint)
    text = config.text_config
    text.hidden_size = config.vision_config.out_hidden_size = HIDDEN
    text.intermediate_size, text.num_hidden_layers, text.vocab_size = INTERMEDIATE, LAYERS, VOCABULARY
    return Model(checkpoint, config)


def build(kind: Model, way: str) -> PreTrainedModel:
    config = copy.deepcopy(kind.config)  # `install_latents` names another attention in it
    torch.manual_seed(0)
    with torch.device("cuda" if ON_GPU else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=kind.dtype, attn_implementation="sdpa").train()
    model.model.visual.requires_grad_(False)
    return install_latents(model, VMF.log_density) if way == SHARED else model


def questions(kind: Model, model: PreTrainedModel, size: Size, count: int, n: int) -> list[Question]:
    """Answers are up to a tenth longer or shorter than the size says, with a full span in each part of A_SPAN_EVERY tokens."""
    processor, latent = AutoProcessor.from_pretrained(kind.checkpoint), LatentSettings.from_config(model.config)
    text, device = model.config.text_config, model.device
    processor.image_processor.size = dict.fromkeys(("shortest_edge", "longest_edge"), size.side**2)
    span = torch.tensor([latent.tokens.start, *[latent.tokens.latent] * latent.max_latents, latent.tokens.end])
    rng, generator, asked = np.random.default_rng(0), torch.Generator().manual_seed(0), list(sentences())[2:]
    made = []
    for number in range(count):
        frames = rng.integers(0, 256, (size.frames, size.side, size.side, 3), dtype=np.uint8)
        content = [*({"type": "image"} for _ in frames), {"type": "text", "text": asked[number % len(asked)]}]
        chat = [{"role": "user", "content": content}]
        prompted = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        seen = processor(text=[prompted], images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
        ids, prompt = seen["input_ids"][0], seen["input_ids"].shape[1]
        positions, delta = model.model.get_rope_index(
            ids[None], mm_token_type_ids=seen["mm_token_type_ids"], image_grid_thw=seen["image_grid_thw"]
        )
        rows, placed, latents = [], [], []
        for length in rng.integers(size.answer - size.answer // 10, size.answer + size.answer // 10 + 1, n):
            answer = torch.randint(FIRST_WORD, text.vocab_size, (int(length),), generator=generator)
            spans = math.ceil(length / A_SPAN_EVERY)
            for part in range(spans):
                first = int(length) * (2 * part + 1) // (2 * spans)
                answer[first : first + len(span)] = span
            after = torch.arange(prompt, prompt + len(answer))
            rows.append(torch.cat([ids, answer]).to(device))
            rope = torch.cat([positions[:, 0], (after + delta).expand(3, -1)], 1)
            placed.append(torch.cat([torch.arange(len(rows[-1]))[None], rope]).to(device))
            latents.append(torch.randn(spans * latent.max_latents, text.hidden_size, generator=generator).to(model.dtype))
        latents = [each.to(device) for each in latents]
        made.append(Question(prompt, rows, placed, latents, seen["pixel_values"].to(device), seen["image_grid_thw"].to(device)))
    return made


def by_rows(model: PreTrainedModel, asked: list[Question], answers_only: bool) -> tuple[Tensor, Tensor]:
    """``(log_probs [N], terms [K])`` of the answers' tokens and latents, row by row."""
    latent = LatentSettings.from_config(model.config).tokens.latent
    rows = [(question, *row) for question in asked for row in zip(question.rows, question.positions, strict=True)]
    ids = pad_sequence([row for _, row, _ in rows], batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for _, row, _ in rows], batch_first=True)
    positions = pad_sequence([positions.T for _, _, positions in rows], batch_first=True).permute(2, 0, 1)[1:]
    latents = torch.cat([each for question in asked for each in question.latents])
    embeddings = model.get_input_embeddings()(ids).masked_scatter((ids == latent)[..., None], latents)
    hidden = model.model(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False,
        pixel_values=torch.cat([question.pixels for question, _, _ in rows]),
        image_grid_thw=torch.cat([question.grid for question, _, _ in rows]),
    ).last_hidden_state  # fmt: skip
    answered = [torch.arange(len(row), device=ids.device) >= question.prompt for question, row, _ in rows]
    answered = pad_sequence(answered, batch_first=True)
    predicting, said = answered.roll(-1, 1), ids.roll(-1, 1)
    states, before, token = hidden[predicting], ids[predicting], said[predicting]
    if answers_only:
        log_probs = logprobs_from_logits(model.lm_head(states), token)
    else:
        log_probs = logprobs_from_logits(model.lm_head(hidden), said)[predicting]
    return _decisions(model, states, before, token, log_probs), VMF.log_density(states[token == latent], latents)


def _decisions(model: PreTrainedModel, states: Tensor, before: Tensor, token: Tensor, log_probs: Tensor) -> Tensor:
    """Turns log-probs over the whole vocabulary into those of `Head`, which excludes what is never sampled, and has
    log(1 - p(end)) of a latent. From the logits of four tokens, so that the rows do not pay for it."""
    weight, tokens = model.lm_head.weight, LatentSettings.from_config(model.config).tokens
    logit = (states * weight[token]).sum(-1)
    total = logit - log_probs
    outside = (before != tokens.start) & (before != tokens.latent)
    never = states @ weight[[model.config.image_token_id, model.config.video_token_id, tokens.latent]].T
    share = (never - total[:, None]).exp()
    total = total + torch.log1p(-share[:, 0] - share[:, 1] - share[:, 2] * outside)
    ends = states @ weight[tokens.end] - total
    return torch.where(token == tokens.latent, torch.log1p(-ends.exp()), logit - total)


def shared(model: PreTrainedModel, asked: list[Question]) -> tuple[Tensor, Tensor]:
    """As `by_rows`."""
    packing = Packing(
        prompts=tuple(question.prompt for question in asked),
        answers=tuple(len(row) - question.prompt for question in asked for row in question.rows),
        questions=tuple(number for number, question in enumerate(asked) for _ in question.rows),
        device=model.device,
    )
    output = model(
        input_ids=packing.pack([row for question in asked for row in question.rows])[None],
        position_ids=packing.pack([each for question in asked for each in question.positions])[:, None],
        packing=packing,
        pixel_values=torch.cat([question.pixels for question in asked]),
        image_grid_thw=torch.cat([question.grid for question in asked]),
        latents=torch.cat([each for question in asked for each in question.latents]),
    )
    return output.log_probs, output.latent_term


FORWARDS = {ROWS: partial(by_rows, answers_only=False), ANSWERS: partial(by_rows, answers_only=True), SHARED: shared}


def update(way: str, model: PreTrainedModel, asked: list[Question]) -> Tensor:
    """Log-probs ``[N]``; gradients are in the model."""
    log_probs, terms = FORWARDS[way](model, asked)
    advantages = torch.arange(len(log_probs), device=log_probs.device).sin()
    ((log_probs * advantages).mean() + terms.mean()).backward()
    return log_probs.detach()


def timed(way: str, which: str, model: PreTrainedModel, asked: list[Question]) -> float:
    model.zero_grad()
    started = time.perf_counter()
    if which == "update":
        update(way, model, asked)
    else:
        with torch.no_grad():
            FORWARDS[way](model, asked)
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def most_memory(way: str, kind: Model, *shape: Any) -> int:
    """Bytes that an update has at most, above those before it."""
    model = build(kind, way)
    asked = questions(kind, model, *shape)
    return peak(lambda: update(way, model, asked)).above


def _in_a_fresh_process(way: str, *arguments: Any) -> int:
    """`most_memory`, where what this process has freed is not used again."""
    fresh = get_context("forkserver")
    fresh.set_forkserver_preload(
        ["verl.utils.torch_functional", install_latents.__module__, tiny.__name__]
    )  # they take seconds
    with ProcessPoolExecutor(1, mp_context=fresh) as other:
        return other.submit(most_memory, way, *arguments).result()


def agreement(way: str, model: PreTrainedModel, asked: list[Question], ours: PreTrainedModel) -> dict[str, float]:
    """Largest difference of log-probs to those of the shared prompt, and relative error of the gradient."""
    model.zero_grad()
    ours.zero_grad()
    theirs, mine = update(way, model, asked), update(SHARED, ours, asked)
    wrong = right = 0.0
    for their, my in zip(model.parameters(), ours.parameters(), strict=True):
        if their.grad is not None:
            wrong += float((their.grad.float() - my.grad.float()).square().sum())
            right += float(their.grad.float().square().sum())
    model.zero_grad()
    ours.zero_grad()
    return {"log_probs": float((theirs - mine).abs().max()), "gradients": math.sqrt(wrong / right)}


def measure(kind: Model, size: Size, count: int, n: int, rounds: int, max_gb: float) -> dict[str, Any]:
    """One cell. Raises ValueError if the ways disagree in fp32."""
    plain, ours = build(kind, ROWS), build(kind, SHARED)
    asked = questions(kind, plain, size, count, n)
    padded = count * n * max(len(row) for question in asked for row in question.rows)
    packed = sum(question.prompt + sum(len(row) - question.prompt for row in question.rows) for question in asked)
    needed = LOGITS_ALIVE * padded * kind.config.text_config.vocab_size * kind.dtype.itemsize / 1e9
    reason = f"logits and their gradient take {needed:.1f} GB, --max-gb is {max_gb:g}" if needed > max_gb else None
    ways = [way for way in FORWARDS if way != ROWS or reason is None]
    memory = {way: (most_memory if ON_GPU else _in_a_fresh_process)(way, kind, size, count, n) for way in ways}
    gc.collect()  # models refer to themselves
    agrees = {way: agreement(way, plain, asked, ours) for way in ways if way != SHARED}
    for way, errors in agrees.items():
        if kind.dtype == torch.float32 and max(errors.values()) > CLOSE:
            raise ValueError(f"{way} and {SHARED} disagree: {errors}")
    models = {way: ours if way == SHARED else plain for way in ways}
    turns = {f"{way}: {which}": partial(timed, way, which, models[way], asked) for way in ways for which in PASSES}
    seconds = alternate(turns, rounds)
    return {
        "prompt": asked[0].prompt, "answers": n, "questions": count, "rounds": rounds, "left_out": reason,
        "tokens": {"rows": padded, "shared": packed}, "agreement": agrees, "peak_bytes": memory,
        "seconds": {way: {which: seconds[f"{way}: {which}"] for which in PASSES} for way in ways},
    }  # fmt: skip


def altogether(cell: dict[str, Any], way: str, passes: tuple[str, ...] = PASSES) -> list[float]:
    """Seconds of ``passes``, by round."""
    return [sum(each) for each in zip(*(cell["seconds"][way][which] for which in passes), strict=True)]


def times_ours(cell: dict[str, Any], way: str) -> dict[str, dict[str, float]]:
    """``seconds`` of three passes over ours of three, ``two passes`` over ours of two, and peak ``memory``."""
    theirs, ours = altogether(cell, way), (altogether(cell, SHARED, passes) for passes in (PASSES, PASSES[1:]))
    seconds, two = (ratio(theirs, each) for each in ours)
    return {"seconds": seconds, "two passes": two, "memory": spread([cell["peak_bytes"][way] / cell["peak_bytes"][SHARED]])}


def table(cells: dict[str, dict[str, Any]]) -> Table:
    made = Table(
        "", "", "tokens", *(f"{which}, s" for which in PASSES), "all, s", "times ours", "times ours, two passes", "peak, GB",
        "times ours", title="Training passes of questions (medians of rounds; ratios within rounds)",
    )  # fmt: skip
    for name, cell in cells.items():
        for way, passes in cell["seconds"].items():
            ratios = times_ours(cell, way)
            made.add_row(
                name, way, f"{cell['tokens']['shared' if way == SHARED else 'rows']:,}",
                *(f"{statistics.median(each):.2f}" for each in (*passes.values(), altogether(cell, way))),
                shown(ratios["seconds"], 2), shown(ratios["two passes"], 2), f"{cell['peak_bytes'][way] / 1e9:.2f}",
                f"{ratios['memory']['median']:.2f}",
            )  # fmt: skip
    return made


def remarks(cells: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How the ways agree, what is left out and why, and which goals are met."""
    for name, cell in cells.items():
        for way, errors in cell["agreement"].items():
            off = f"{errors['log_probs']:.1e} nats and {errors['gradients']:.1e} of the gradient"
            yield f"{name}: {way} and {SHARED} differ by {off}"
        if cell["left_out"]:
            yield f"{name}: without {ROWS}: {cell['left_out']}"
    for (name, way), wanted in GOALS.items():
        if way in cells.get(name, {}).get("seconds", {}):
            found = times_ours(cells[name], way)
            for what, goal in wanted.items():
                value = found[what]["median"]
                yield f"{name}, {way}: {what} {value:.2f} times ours, goal {goal:g}: {'met' if value >= goal else 'missed'}"


def draw(cells: dict[str, dict[str, Any]], path: Path) -> None:
    panels = {
        "Three passes, verl's rows": (ROWS, "seconds"),
        "Three passes, rows with the answers' logits": (ANSWERS, "seconds"),
        "Peak memory of an update, verl's rows": (ROWS, "memory"),
    }
    figure = Figure(figsize=(13, 4), layout="tight")
    for place, (title, (way, what)) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), place, title=title, ylabel="times ours", xlabel="tokens of prompt / answer")
        for n in sorted({cell["answers"] for cell in cells.values()}):
            found = [cells.get(f"{size} n={n}") for size in SIZES]
            values = [times_ours(cell, way)[what]["median"] if cell and way in cell["seconds"] else math.nan for cell in found]
            axes.plot(list(SIZES), values, marker="o", label=f"{n} answers")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="tokens of prompt / answer, about")
    parser.add_argument("--n", nargs="+", type=int, default=[4, 8, 16], help="answers to a question")
    parser.add_argument("--questions", type=int, help="in a cell; by default 16, 4, 1 and 1, by size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-gb", type=float, default=16.0, help="without the way whose logits are estimated to take more")
    parser.add_argument("--out", type=Path, required=True, help="the figures, JSON")
    parser.add_argument("--figure", type=Path, help="PNG")
    args = parser.parse_args(arguments)
    cells = json.loads(args.out.read_text()) if args.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        tiny.build(Path(folder))
        kind = widened(Path(folder))
        for size, n in product(args.sizes, args.n):
            name, count = f"{size} n={n}", args.questions or SIZES[size].questions
            if (cells.get(name, {}).get("rounds"), cells.get(name, {}).get("questions")) == (args.rounds, count):
                continue
            cells[name] = measure(kind, SIZES[size], count, n, args.rounds, args.max_gb)
            args.out.write_text(json.dumps(cells, indent=1) + "\n")
    Console(width=160).print(table(cells))
    for line in remarks(cells):
        print(line)
    if args.figure:
        draw(cells, args.figure)


if __name__ == "__main__":
    main()
