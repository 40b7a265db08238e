"""``python benchmarks/evaluation_vs_hf.py --data FILE --model DIR``: evaluation against loops over plain transformers.

The same questions (an RL parquet), greedy, fp32, one process after the other: the runner with its vLLM engine, a loop with a
key-value cache over one question at a time, and the oracle (decoding/hf.py), which runs the whole sequence anew for each token.
Frames are decoded and prompts made in all three. Prints a table and a JSON line; fails unless all answers are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from loops import cached
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from future_l1_verl.data.prompts import processor_inputs
from future_l1_verl.data.rows import Row
from future_l1_verl.decoding import hf
from future_l1_verl.evaluation import runs, tasks
from future_l1_verl.evaluation.engines import Decoding, Engine, LocalEngine, LocalSettings
from future_l1_verl.evaluation.prompting import Style, prompt
from future_l1_verl.evaluation.runner import Grader, RunOptions, run
from future_l1_verl.latents.tokens import LatentSettings

TOKENS = 96
STYLE = Style("latent", None, "frames", spans=True)
Answers = list[list[int]]


def with_cache(model: PreTrainedModel, inputs: dict[str, Tensor], latent: LatentSettings, end: int) -> list[int]:
    return cached(model, inputs, latent, TOKENS, end)[0]


def oracle(model: PreTrainedModel, inputs: dict[str, Tensor], latent: LatentSettings, end: int) -> list[int]:
    return hf.generate(model, inputs, latent, max_new_tokens=TOKENS, eos_token_id=end).token_ids.tolist()


def loop(decode: Callable[..., list[int]], checkpoint: Path, questions: list[Row]) -> tuple[Answers, float, float]:
    """Answers, and seconds around asking (to load the model), and of it."""
    started = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor, latent = AutoProcessor.from_pretrained(checkpoint), LatentSettings.from_checkpoint(checkpoint)
    loaded = time.perf_counter()
    answers = [
        decode(
            model, dict(processor_inputs(processor, prompt(question, STYLE, 32).chat)), latent, processor.tokenizer.eos_token_id
        )
        for question in tqdm(questions, desc=decode.__name__, leave=False)
    ]
    return answers, loaded - started, time.perf_counter() - loaded


class Timed(LocalEngine):
    closing = 0.0

    async def close(self) -> None:
        self.closing = time.perf_counter()
        await super().close()


def evaluation(checkpoint: Path, questions: list[Row], folder: Path) -> tuple[Answers, float, float]:
    latent = LatentSettings.from_checkpoint(checkpoint)
    settings = LocalSettings(checkpoint, Decoding(TOKENS), {"image": 8}, dtype="float32", max_model_len=1024)
    started, ready, engine = time.perf_counter(), 0.0, None

    async def start() -> Engine:
        nonlocal ready, engine
        engine = await Timed.start(settings, has_latents=True)
        ready = time.perf_counter()
        return engine

    options = RunOptions(STYLE, max_frames=32, concurrency=256, latent=latent, min_latents=1)
    asyncio.run(run(questions, start, Grader(None, None, 32), options, folder))
    asking_took = engine.closing - ready
    around = time.perf_counter() - started - asking_took  # starting and ending the engine's processes
    return [record.token_ids for record in runs.records(folder)], around, asking_took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=200)
    args = parser.parse_args()
    questions, _ = tasks.read(tasks.TASKS["synthetic"], [args.data], None, args.questions)
    with tempfile.TemporaryDirectory() as folder:
        measured = {"evaluation": evaluation(args.model, questions, Path(folder))}
    measured |= {decode.__name__: loop(decode, args.model, questions) for decode in (with_cache, oracle)}
    answers = measured["evaluation"][0]
    different = [name for name, (found, _, _) in measured.items() if found != answers]
    if different:
        raise SystemExit(f"{', '.join(different)}: other answers than the evaluation's")
    table = Table(title=f"{len(questions)} questions, {sum(map(len, answers))} tokens")
    for column in ("", "around [s]", "asking [s]", "asking, times the evaluation's", "both, times the evaluation's"):
        table.add_column(column, justify="right" if column else "left")
    _, start, asking = measured["evaluation"]
    for name, (_, load, ask) in measured.items():
        table.add_row(name, f"{load:.1f}", f"{ask:.1f}", f"{ask / asking:.1f}", f"{(load + ask) / (start + asking):.1f}")
    Console().print(table)
    print(json.dumps({name: {"around_s": load, "asking_s": ask} for name, (_, load, ask) in measured.items()}))


if __name__ == "__main__":
    main()
