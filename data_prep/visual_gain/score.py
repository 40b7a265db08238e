"""``score``: answers of a model to each candidate, with and without its future frames, and verdicts on them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from data_prep.visual_gain import candidates as candidate_files
from data_prep.visual_gain import pipeline
from data_prep.visual_gain.backends import Sampling
from data_prep.visual_gain.backends.openai import OpenAISettings
from data_prep.visual_gain.backends.vllm import VllmSettings
from data_prep.visual_gain.patience import Patience
from data_prep.visual_gain.questions import Prompts
from data_prep.visual_gain.stages import Job
from data_prep.visual_gain.verdicts import Verdicts
from future_l1_verl.data.twiff import POOL
from future_l1_verl.rewards.judge.settings import JudgeSettings

HELP = "let a model answer every candidate with and without its future frames, on Ray Data; started again, it goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what")
    what.add_argument("--candidates", type=Path, required=True, help="file that `read` wrote")
    what.add_argument("--videos", type=Path, required=True, help="folder that the candidates' videos are relative to")
    what.add_argument("--out", type=Path, required=True, help="folder for the scores, seen by every machine")
    what.add_argument("--retry-failed", action="store_true", help="ask again for what failed in earlier runs")
    who = parser.add_argument_group("who answers")
    who.add_argument("--model", required=True, help="checkpoint directory, or its name at the server of --url")
    who.add_argument("--url", help="server with the OpenAI API, what comes before /chat/completions; default: vLLM engines")
    who.add_argument("--api-key-file", help="for --url")
    who.add_argument("--concurrency", type=int, default=OpenAISettings.concurrency, help="requests in flight per replica")
    who.add_argument("--replicas", type=int, default=1, help="engines, or processes that ask the server")
    who.add_argument("--gpus", type=float, default=0, help="GPUs per engine; 0 for a CPU")
    who.add_argument("--engine", type=json.loads, default={}, metavar="JSON", help="further arguments of vllm.LLM")
    who.add_argument(
        "--address", default="local", help="of a Ray cluster, or auto for the one started here; default: none but this process"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--rollouts", type=int, default=Job.rollouts, help="per condition")
    how.add_argument("--temperature", type=float, default=Sampling.temperature)
    how.add_argument("--top-p", type=float, default=Sampling.top_p)
    how.add_argument("--max-tokens", type=int, default=Sampling.max_tokens)
    how.add_argument("--max-pixels", type=int, default=Job.max_pixels, help="frames are shrunk to this")
    how.add_argument("--base-prompt", type=Path, help="file with {question}; default: ours")
    how.add_argument("--hint-prompt", type=Path, help="file with {question} and, after it, {future}; default: ours")
    how.add_argument("--system-prompt")
    how.add_argument("--seed", type=int, default=Job.seed)
    how.add_argument("--shard-size", type=int, default=Job.shard_size, help="candidates that are asked, and kept, together")
    judge = parser.add_argument_group("who judges what no rule can decide")
    judge.add_argument("--judge-url", help="default: rules alone")
    judge.add_argument("--judge-model")
    judge.add_argument("--judge-max-tokens", type=int, default=JudgeSettings.max_tokens, help="of its reply, thoughts included")
    judge.add_argument("--judge-request", type=json.loads, default={}, metavar="JSON", help="further fields of its requests")
    judge.add_argument("--judge-mode", default=JudgeSettings.mode, choices=("rule_first", "judge_only"))
    judge.add_argument("--judge-prompt", help="file with {question}, {truth} and {answer}; default: ours")
    judge.add_argument("--judge-api-key-file")
    judge.add_argument("--judge-concurrency", type=int, default=JudgeSettings.concurrency)
    judge.add_argument("--judge-cache", help="SQLite file on a disk of the machine that asks")
    patience = parser.add_argument_group("servers that fail")
    patience.add_argument("--rounds", type=int, default=Patience.rounds, help="times that one thing is asked for")
    patience.add_argument("--outage", type=float, default=Patience.outage, help="seconds that a server may be away")


def run(args: argparse.Namespace) -> None:
    if not args.videos.is_dir():
        raise SystemExit(f"--videos {args.videos}: no such folder")
    job = Job(
        args.candidates.resolve(),
        args.videos.resolve(),
        args.out.resolve(),
        Prompts.read(args.base_prompt, args.hint_prompt, args.system_prompt),
        args.rollouts,
        args.seed,
        args.shard_size,
        args.max_pixels,
    )
    patience = Patience(args.rounds, outage=args.outage)
    backend, judge = _backend(args, patience), _judge(args)
    total = pipeline.shards(job)
    _require_clips(job)
    pipeline.keep_settings(job, backend, judge)
    Verdicts(judge, patience).wait_for_judge()
    if args.retry_failed:
        print(f"{pipeline.reopen_failed(job)} of {total} shards hold failures and are continued")
    ray.init(address=args.address, include_dashboard=False)
    replicas = pipeline.Replicas(args.replicas, args.gpus)
    finished = sum(job.scores_file(shard).exists() for shard in range(total))
    with tqdm(total=total, initial=finished, desc="shards", unit="shard") as bar:
        for _ in pipeline.score(job, backend, replicas, judge, patience):
            bar.update()
    Console().print(as_table(pipeline.summary(job.folder)))


def _backend(args: argparse.Namespace, patience: Patience) -> VllmSettings | OpenAISettings:
    sampling = Sampling(args.temperature, args.top_p, args.max_tokens)
    if args.url:
        return OpenAISettings(
            args.url, args.model, sampling, patience, args.concurrency, api_key_file=_absolute(args.api_key_file)
        )
    engine = {"limit_mm_per_prompt": {"image": 2 * POOL}}
    if args.gpus > 1:
        engine["tensor_parallel_size"] = int(args.gpus)
    return VllmSettings(str(Path(args.model).resolve()), sampling, engine | args.engine)


def _judge(args: argparse.Namespace) -> JudgeSettings | None:
    if not args.judge_url:
        return None
    return JudgeSettings(
        args.judge_url,
        args.judge_model,
        mode=args.judge_mode,
        prompt=_absolute(args.judge_prompt),
        concurrency=args.judge_concurrency,
        api_key_file=_absolute(args.judge_api_key_file),
        cache=_absolute(args.judge_cache),
        max_tokens=args.judge_max_tokens,
        request=args.judge_request,
    )


def _absolute(path: str | None) -> str | None:
    """Workers have a current folder of their own."""
    return None if path is None else str(Path(path).resolve())


def _require_clips(job: Job) -> None:
    first = candidate_files.part(job.candidates, 0, 100)
    if not any((job.videos / candidate["video"]).exists() for candidate in first):
        raise SystemExit(f"--videos {job.videos}: has none of the clips of the first {len(first)} candidates")


def as_table(summary: dict[str, Any]) -> Table:
    table = Table(title="scores", show_header=False)
    failures = {f"no text or no verdict: {reason}": number for reason, number in summary["failures"].items()}
    for name, value in (summary | failures).items():
        if name != "failures":
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table
