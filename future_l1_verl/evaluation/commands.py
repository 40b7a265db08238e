"""``evaluation run``: from the arguments of a command line to a folder with answers, a summary and, maybe, a comparison."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from future_l1_verl.data.files import whole
from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.evaluation import runs, tasks
from future_l1_verl.evaluation.comparison import compare, comparison_table
from future_l1_verl.evaluation.engines import Decoding, Engine, LocalEngine, LocalSettings
from future_l1_verl.evaluation.interventions import KINDS, Interventions, require_same
from future_l1_verl.evaluation.prompting import STYLES, system_prompt
from future_l1_verl.evaluation.runner import Asking, Grader, run
from future_l1_verl.evaluation.scoring import as_table, is_result, summarise
from future_l1_verl.evaluation.served import ServedEngine
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.rewards.judge import Judge, JudgeSettings
from future_l1_verl.sft.checks import check_checkpoint


def add_arguments(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what is asked")
    what.add_argument("--task", choices=tasks.TASKS, required=True)
    what.add_argument("--data", type=Path, required=True, help="parquet, JSON, JSON lines, or a folder of save_to_disk")
    what.add_argument("--videos", type=Path, help="folder of the clips; default: that of the data")
    what.add_argument("--limit", type=positive, help="only the first rows")
    what.add_argument("--max-frames", type=positive, default=32, help="of a clip whose question names no frames; default: 32")
    what.add_argument("--prompt", choices=STYLES, default="latent", help="latent spans and text, text, or the answer alone")
    what.add_argument("--system-prompt", help="instead of that of --prompt; empty for none")

    who = command.add_argument_group("who answers")
    who.add_argument("--model", type=Path, required=True, help="checkpoint directory; with --url the one that is served there")
    who.add_argument("--url", help="a running `vllm serve`: what comes before /chat/completions")
    who.add_argument("--served-name", help="default: the only one that the server lists")
    who.add_argument("--api-key-file", type=Path)
    who.add_argument("--tensor-parallel", type=positive, default=1)
    who.add_argument("--data-parallel", type=positive, default=1)
    who.add_argument("--dtype", default="auto")
    who.add_argument("--max-model-len", type=positive)
    who.add_argument("--gpu-memory-utilization", type=float)
    who.add_argument("--engine", type=json.loads, default={}, metavar="JSON", help="further arguments of vLLM's engine")
    who.add_argument("--concurrency", type=positive, default=128, help="questions at once, frames in memory; default: 128")

    how = command.add_argument_group("how")
    how.add_argument("--max-tokens", type=positive, help="of a reply; default: the task's")
    how.add_argument("--temperature", type=float, default=0.0)
    how.add_argument("--top-p", type=float, default=1.0)
    how.add_argument("--seed", type=int, default=0, help="of sampling and interventions")
    how.add_argument("--min-latents", type=positive, default=1)
    how.add_argument("--intervene", choices=KINDS, help="replace the latents of the answers of --intact")
    how.add_argument("--intact", type=Path, metavar="DIR", help="a finished run, made with --save-latents")

    judge = command.add_argument_group("judge of open answers; for twiffbench needed")
    judge.add_argument("--judge-url", help="what comes before /chat/completions")
    judge.add_argument("--judge-model")
    judge.add_argument("--judge-concurrency", type=positive, default=64)
    judge.add_argument("--judge-api-key-file")
    judge.add_argument("--judge-cache", help="file of verdicts, for the processes of one machine")

    command.add_argument("--out", type=Path, required=True, help="folder; started again with it, a run goes on")
    command.add_argument("--save-latents", action="store_true")


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def run_command(args: argparse.Namespace) -> int:
    """0, or 1 if verdicts are missing. Raises ValueError (RowError, RunError) or FileNotFoundError for what is not fit."""
    task = tasks.TASKS[args.task]
    decoding = Decoding(
        max_tokens=args.max_tokens or task.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        min_latents=args.min_latents,
        seed=args.seed,
        spans=args.prompt == "latent",
    )
    latent = _latent_settings(args.model, decoding)
    judge = _judge(args, task.marks)
    system = system_prompt(args.prompt) if args.system_prompt is None else args.system_prompt or None
    questions = tasks.read(task, args.data, args.videos, args.limit)
    settings = {
        "task": args.task,
        "data": str(args.data.resolve()),
        "questions": len(questions),
        "max_frames": args.max_frames,
        "prompt": args.prompt,
        "system_prompt": system,
        "model": str(args.model.resolve()),
        "dtype": args.dtype,
        "engine": args.engine,
        "decoding": asdict(decoding),
        "judge": {"model": judge.model} if judge else None,
        "save_latents": args.save_latents,
        "intervene": args.intervene,
        "intact": str(args.intact.resolve()) if args.intact else None,
    }
    interventions = _interventions(args, settings)
    runs.begin(args.out, settings)
    asking = Asking(
        system=system,
        max_frames=args.max_frames,
        concurrency=args.concurrency,
        latent=latent,
        min_latents=args.min_latents,
        save_latents=args.save_latents,
        interventions=interventions,
    )
    images = max(len(question.image) if question.image is not None else args.max_frames for question in questions)

    async def start() -> Engine:
        if args.url:
            key = args.api_key_file.read_text(encoding="utf-8").strip() if args.api_key_file else "none"
            return await ServedEngine.connect(args.url, args.served_name, args.model, latent, decoding, key)
        local = LocalSettings(
            checkpoint=args.model,
            decoding=decoding,
            images=images,
            dtype=args.dtype,
            max_model_len=args.max_model_len,
            tensor_parallel=args.tensor_parallel,
            data_parallel=args.data_parallel,
            intervening=args.intervene is not None,
            gpu_memory_utilization=args.gpu_memory_utilization,
            extra=args.engine,
        )
        return await LocalEngine.start(local, has_latents=latent is not None)

    asyncio.run(run(questions, start, Grader(Judge(judge) if judge else None, task.marks), asking, args.out))
    return _finish(args.out, settings, interventions)


def _finish(folder: Path, settings: dict[str, Any], interventions: Interventions | None) -> int:
    found = runs.read(folder)
    summary = summarise(found.records)
    _write(folder / runs.SUMMARY, {"settings": settings, "splits": summary})
    console = Console()
    console.print(as_table(summary, f"{settings['task']}: {settings['model']}"))
    if not is_result(summary):
        return 1
    if interventions is not None:
        compared = compare(interventions.intact, found)
        _write(folder / runs.COMPARISON, compared)
        console.print(comparison_table(compared, "intact", interventions.kind))
    return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _latent_settings(model: Path, decoding: Decoding) -> LatentSettings | None:
    """None for a checkpoint without latent tokens, which can answer in text only. Raises ValueError too if its budget does not
    allow ``decoding``."""
    config = json.loads((model / "config.json").read_text()) if (model / "config.json").is_file() else {}
    if not decoding.spans and "latent_token_id" not in config:
        return None
    latent = check_checkpoint(model)
    SpanOptions(latent.max_latents, decoding.min_latents)
    return latent


def _judge(args: argparse.Namespace, marks: bool) -> JudgeSettings | None:
    if marks and not args.judge_url:
        raise ValueError(f"--task {args.task} needs a judge: --judge-url and --judge-model")
    if not args.judge_url:
        return None
    return JudgeSettings(
        url=args.judge_url,
        model=args.judge_model or "",
        concurrency=args.judge_concurrency,
        api_key_file=args.judge_api_key_file,
        cache=args.judge_cache,
        # Verdicts that fail are counted, listed and asked for again by the next run.
        max_failure_rate=1.0,
    )


def _interventions(args: argparse.Namespace, settings: dict[str, Any]) -> Interventions | None:
    if (args.intervene is None) != (args.intact is None):
        raise ValueError("--intervene and --intact go together")
    if args.intervene is None:
        return None
    if args.prompt != "latent":
        raise ValueError(f"--intervene needs --prompt latent: with {args.prompt} there are no latents")
    intact = runs.read_finished(args.intact)
    require_same(settings, intact)
    return Interventions(args.intervene, intact, args.seed)
