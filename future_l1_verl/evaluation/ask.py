"""``future-l1 eval run``: writes a folder with answers, a summary and, for interventions, a comparison."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from future_l1_verl import chat
from future_l1_verl.data.rows import FORMS
from future_l1_verl.decoding.vllm.settings import SpanOptions
from future_l1_verl.evaluation import runs, tasks
from future_l1_verl.evaluation.comparison import compare, comparison_tables
from future_l1_verl.evaluation.engines import Decoding, Engine, LocalEngine, LocalSettings
from future_l1_verl.evaluation.interventions import Interventions, require_same
from future_l1_verl.evaluation.prompting import Style, most_frames
from future_l1_verl.evaluation.runner import Grader, RunOptions, run
from future_l1_verl.evaluation.scoring import as_tables, is_result, summarise
from future_l1_verl.evaluation.served import ServedEngine
from future_l1_verl.files import write_json
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.checkpoint import check_checkpoint
from future_l1_verl.modeling.trained_as import TrainedAs, differences
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeSettings


def ask(args: argparse.Namespace) -> int:
    """Runs it; returns 0, or 1 if verdicts are missing. Raises ValueError (RowError, RunError) or FileNotFoundError."""
    task = tasks.TASKS[args.task]
    has_latents = "latent_token_id" in _config(args.model)
    trained = TrainedAs.from_checkpoint(args.model, text_only=not has_latents)
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
    options = RunOptions(
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
            key = chat.read_key(args.api_key_file)
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
    asyncio.run(run(questions, start, grader, options, args.out))
    return _finish(args.out, settings, interventions)


def _style(args: argparse.Namespace, trained: TrainedAs, has_latents: bool) -> Style:
    """Returns the style of questions, and prints how it differs from the checkpoint's training."""
    style = Style.for_checkpoint(args.prompt, trained, has_latents)
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
    write_json(folder / runs.SUMMARY, {"settings": settings, "splits": summary, "unanswered": len(unanswered)})
    console = Console()
    marked = f", marked by {settings['marking']}" if settings["marking"] else ""
    console.print(*as_tables(summary, f"{settings['task']}: {settings['model']}{marked}", len(unanswered)))
    if not is_result(summary, len(unanswered)):
        return 1
    if interventions is not None:
        asked = {record.row for record in found.records}
        left_alone = replace(interventions.intact, records=[each for each in interventions.intact.records if each.row in asked])
        compared = compare(left_alone, found)
        write_json(folder / runs.COMPARISON, compared)
        console.print(*comparison_tables(compared, "intact", interventions.kind))
    return 0


def _config(model: Path) -> dict[str, Any]:
    """Reads a checkpoint's ``config.json``. Raises FileNotFoundError for a folder that is not a checkpoint."""
    if not (model / "config.json").is_file():
        raise FileNotFoundError(f"--model {model}: holds no config.json; a checkpoint directory is needed")
    try:
        return json.loads((model / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--model {model}: config.json is not JSON: {error}") from error


def _latent_settings(model: Path, decoding: Decoding, has_latents: bool) -> LatentSettings | None:
    """Returns a checkpoint's settings, or None without latent tokens: it can then only answer in text. Raises ValueError if
    its budget does not allow ``decoding``."""
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
        # Failed verdicts are counted and listed, and the next run asks for them again.
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
