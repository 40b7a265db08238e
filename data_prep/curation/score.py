"""``score``: a model answers each candidate, with and without its future frames, and the answers get verdicts."""

import argparse
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from data_prep.curation import candidates as candidate_files
from data_prep.curation import pipeline
from data_prep.curation.backends import Sampling
from data_prep.curation.backends.openai import OpenAISettings
from data_prep.curation.backends.vllm import VllmSettings
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from data_prep.curation.questions import Prompts
from data_prep.curation.verdicts import Verdicts
from future_l1_verl.collector import RAY_HOOK
from future_l1_verl.data.twiff import POOL
from future_l1_verl.progress import Progress
from future_l1_verl.rewards.judge.settings import JudgeSettings


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
    pipeline.begin(job, backend, judge)
    Verdicts(judge, patience).wait_for_judge()
    if args.retry_failed:
        print(f"{pipeline.reopen_failed(job)} of {total} shards hold failures and are continued")
    ray.init(address=args.address, include_dashboard=False, runtime_env=RAY_HOOK)
    replicas = pipeline.Replicas(args.replicas, args.gpus)
    finished = sum(job.scores_file(shard).exists() for shard in range(total))
    with Progress(total=total, initial=finished, desc="shards", unit="shard") as bar:
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
    """Returns an absolute path, since workers have another current folder."""
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
