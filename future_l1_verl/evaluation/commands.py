"""``evaluation run``: from the arguments of a command line to a folder with answers, a summary and, maybe, a comparison."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from future_l1_verl.data.files import whole
from future_l1_verl.data.prompts import FORMS
from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.evaluation import runs, tasks
from future_l1_verl.evaluation.comparison import compare, comparison_table
from future_l1_verl.evaluation.engines import Decoding, Engine, LocalEngine, LocalSettings
from future_l1_verl.evaluation.interventions import KINDS, Interventions, require_same
from future_l1_verl.evaluation.marks import PROTOCOLS
from future_l1_verl.evaluation.prompting import STYLES, Style, most_frames
from future_l1_verl.evaluation.runner import Asking, Grader, run
from future_l1_verl.evaluation.scoring import as_table, is_result, summarise
from future_l1_verl.evaluation.served import ServedEngine
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.checkpoint import check_checkpoint
from future_l1_verl.modeling.trained_as import TrainedAs, differences
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings


def add_arguments(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what is asked")
    what.add_argument("--task", choices=tasks.TASKS, required=True)
    what.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="parquet, JSON or JSON lines; a folder of shards, or of save_to_disk",
    )
    what.add_argument("--videos", help="where clips are: a folder, a map or a template; default: beside the data")
    what.add_argument("--limit", type=positive, help="only the first rows")
    what.add_argument("--max-frames", type=positive, default=32, help="of a clip whose question names no frames; default: 32")
    what.add_argument(
        "--prompt",
        choices=STYLES,
        help="latent spans and text; that, and the letter of an option alone; text as the checkpoint was trained, or asked for "
        "by us, or the answer alone; default: as the checkpoint was trained",
    )
    what.add_argument("--system-prompt", help="instead of that of --prompt; empty for none")
    what.add_argument("--observed", choices=FORMS, help="how frames are shown; default: as the checkpoint was trained")

    who = command.add_argument_group("who answers")
    who.add_argument("--model", type=Path, required=True, help="checkpoint directory; with --url the one that is served there")
    who.add_argument("--url", help="a running `vllm serve`: what comes before /chat/completions")
    who.add_argument("--served-name", help="default: the only one that the server lists")
    who.add_argument("--api-key-file", type=Path)
    who.add_argument("--tensor-parallel", type=positive, default=1)
    who.add_argument("--data-parallel", type=positive, default=1)
    who.add_argument("--dtype", default="auto")
    who.add_argument("--max-model-len", type=positive)
    who.add_argument("--gpu-memory-utilization", type=number(0.01, 1))
    who.add_argument("--engine", type=json_object, default={}, metavar="JSON", help="further arguments of vLLM's engine")
    who.add_argument("--concurrency", type=positive, default=128, help="questions at once, frames in memory; default: 128")

    how = command.add_argument_group("how")
    how.add_argument("--max-tokens", type=positive, help="of a reply; default: the task's")
    how.add_argument("--temperature", type=number(0, 2), default=0.0)
    how.add_argument("--top-p", type=number(1e-6, 1), default=1.0)
    how.add_argument("--seed", type=int, default=0, help="of sampling and interventions")
    how.add_argument("--min-latents", type=positive, default=1)
    how.add_argument("--intervene", choices=KINDS, help="replace the latents of the answers of --intact")
    how.add_argument(
        "--intact", type=Path, metavar="DIR", help="a finished run of these questions or more, made with --save-latents"
    )

    judge = command.add_argument_group("judge of open answers; for twiffbench needed")
    judge.add_argument("--judge-url", help="what comes before /chat/completions")
    judge.add_argument("--judge-model")
    judge.add_argument("--judge-concurrency", type=positive, default=64)
    judge.add_argument("--judge-api-key-file")
    judge.add_argument("--judge-max-tokens", type=positive, default=64, help="of its reply, thoughts included; default: 64")
    judge.add_argument("--judge-request", type=json_object, default={}, metavar="JSON", help="further fields of its requests")
    judge.add_argument("--marking", choices=PROTOCOLS, default="ours", help="how TwiFF-Bench is marked; default: ours")
    judge.add_argument("--judge-cache", help="file of verdicts, for the processes of one machine")

    command.add_argument("--out", type=Path, required=True, help="folder; started again with it, a run goes on")
    command.add_argument("--save-latents", action="store_true")


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def number(least: float, most: float) -> Callable[[str], float]:
    def parsed(text: str) -> float:
        if not least <= (value := float(text)) <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, not {text}")
        return value

    return parsed


def json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object, not {text}: {error}") from error


def run_command(args: argparse.Namespace) -> int:
    """0, or 1 if verdicts are missing. Raises ValueError (RowError, RunError) or FileNotFoundError for what is not fit."""
    task = tasks.TASKS[args.task]
    has_latents = "latent_token_id" in _config(args.model)
    trained = TrainedAs.of(args.model, text_only=not has_latents)
    style = _style(args, trained, has_latents)
    decoding = Decoding(
        max_tokens=args.max_tokens or task.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        min_latents=args.min_latents,
        seed=args.seed,
        spans=style.spans,
    )
    latent = _latent_settings(args.model, decoding, has_latents)
    judge = _judge(args, task.marks)
    questions, bad = tasks.read(task, args.data, args.videos, args.limit)
    settings = {
        "task": args.task,
        "data": [str(path.resolve()) for path in args.data],
        "questions": len(questions) + len(bad),
        "max_frames": args.max_frames,
        "prompt": style.name,
        "system_prompt": style.system,
        "observed": style.observed,
        "model": str(args.model.resolve()),
        "dtype": args.dtype,
        "engine": args.engine,
        "decoding": asdict(decoding),
        "judge": {"model": judge.model, "request": args.judge_request} if judge else None,
        "marking": args.marking if task.marks else None,
        "save_latents": args.save_latents,
        "intervene": args.intervene,
        "intact": str(args.intact.resolve()) if args.intact else None,
    }
    interventions = _interventions(args, settings)
    runs.begin(args.out, settings)
    runs.add_unanswered(args.out, bad)
    asking = Asking(
        style=style,
        max_frames=args.max_frames,
        concurrency=args.concurrency,
        latent=latent,
        min_latents=args.min_latents,
        save_latents=args.save_latents,
        interventions=interventions,
    )
    most = most_frames(questions, args.max_frames)
    media = {"image": most} | ({"video": most} if style.observed == "video" else {})

    async def start() -> Engine:
        if args.url:
            if style.observed == "video":
                raise ValueError(
                    "--url cannot show a video with the times of its frames; leave it out, or use --observed frames"
                )
            key = args.api_key_file.read_text(encoding="utf-8").strip() if args.api_key_file else "none"
            return await ServedEngine.connect(args.url, args.served_name, args.model, latent, decoding, key)
        local = LocalSettings(
            checkpoint=args.model,
            decoding=decoding,
            media=media,
            dtype=args.dtype,
            max_model_len=args.max_model_len,
            tensor_parallel=args.tensor_parallel,
            data_parallel=args.data_parallel,
            intervening=args.intervene is not None,
            gpu_memory_utilization=args.gpu_memory_utilization,
            extra=args.engine,
        )
        return await LocalEngine.start(local, has_latents=latent is not None)

    grader = Grader(Judge(judge) if judge else None, args.marking if task.marks else None, args.max_frames, task.reasons)
    asyncio.run(run(questions, start, grader, asking, args.out))
    return _finish(args.out, settings, interventions)


def _style(args: argparse.Namespace, trained: TrainedAs, has_latents: bool) -> Style:
    """Returns how questions are put, and prints where that is not how the checkpoint was trained."""
    style = Style.of(args.prompt, trained, has_latents)
    if args.system_prompt is not None:
        style = replace(style, system=args.system_prompt or None)
    style = replace(style, observed=args.observed or style.observed)
    if style.observed not in FORMS:
        raise ValueError(
            f"{args.model}/config.json: trained_observed is {style.observed!r}; choose --observed {' or '.join(FORMS)}"
        )
    for sentence in differences(trained, {"system_prompt": style.system, "observed": style.observed}):
        print(sentence, file=sys.stderr)
    return style


def _finish(folder: Path, settings: dict[str, Any], interventions: Interventions | None) -> int:
    found, unanswered = runs.read(folder), runs.unanswered(folder)
    if unanswered:
        print(f"{len(unanswered)} of {settings['questions']} questions have no answer; {folder / runs.UNANSWERED} says why")
    if not found.records:
        return 1
    summary = summarise(found.records)
    _write(folder / runs.SUMMARY, {"settings": settings, "splits": summary, "unanswered": len(unanswered)})
    console = Console()
    marked = f", marked by {settings['marking']}" if settings["marking"] else ""
    console.print(as_table(summary, f"{settings['task']}: {settings['model']}{marked}", len(unanswered)))
    if not is_result(summary, len(unanswered)):
        return 1
    if interventions is not None:
        asked = {record.row for record in found.records}
        left_alone = replace(interventions.intact, records=[each for each in interventions.intact.records if each.row in asked])
        compared = compare(left_alone, found)
        _write(folder / runs.COMPARISON, compared)
        console.print(comparison_table(compared, "intact", interventions.kind))
    return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _config(model: Path) -> dict[str, Any]:
    """Raises FileNotFoundError for a folder that is no checkpoint."""
    if not (model / "config.json").is_file():
        raise FileNotFoundError(f"--model {model}: holds no config.json; a checkpoint directory is needed")
    try:
        return json.loads((model / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--model {model}: config.json is not JSON: {error}") from error


def _latent_settings(model: Path, decoding: Decoding, has_latents: bool) -> LatentSettings | None:
    """None for a checkpoint without latent tokens, which can answer in text only. Raises ValueError too if its budget does not
    allow ``decoding``."""
    if not decoding.spans and not has_latents:
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
        max_tokens=args.judge_max_tokens,
        request=args.judge_request,
        # Verdicts that fail are counted, listed and asked for again by the next run.
        max_failure_rate=1.0,
    )


def _interventions(args: argparse.Namespace, settings: dict[str, Any]) -> Interventions | None:
    if (args.intervene is None) != (args.intact is None):
        raise ValueError("--intervene and --intact go together")
    if args.intervene is None:
        return None
    if not settings["decoding"]["spans"]:
        raise ValueError(f"--intervene needs --prompt latent: with {settings['prompt']} there are no latents")
    intact = runs.read_finished(args.intact)
    require_same(settings, intact)
    return Interventions(args.intervene, intact, args.seed)
