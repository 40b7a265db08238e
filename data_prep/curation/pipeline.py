"""Scores candidates on Ray Data. A row is a shard, so shards stay complete from stage to stage and none waits for another.

Ray Data's own LLM processors (ray.data.llm) take a row per prompt and return one text for each (`outputs[0]`,
ray/llm/_internal/batch/stages/vllm_engine_stage.py): eight rollouts would be eight prompts with the same frames, to be joined
again before anything could be saved. Therefore we have our own stage with an engine per replica.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from data_prep.curation import candidates as candidate_files
from data_prep.curation import scores as score_files
from data_prep.curation.backends.openai import OpenAISettings
from data_prep.curation.backends.vllm import VllmSettings
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from data_prep.curation.scores import CONDITIONS
from data_prep.curation.stages import AddFrames, AddTexts, AddVerdicts
from future_l1_verl.files import keep_settings
from future_l1_verl.rewards.judge.settings import JudgeSettings, read_prompt


@dataclass(frozen=True)
class Replicas:
    """``count`` backends with ``gpus`` each."""

    count: int = 1
    gpus: float = 0


def score(
    job: Job,
    backend: VllmSettings | OpenAISettings,
    replicas: Replicas,
    judge: JudgeSettings | None,
    patience: Patience,
) -> Iterator[int]:
    """Scores the remaining shards; yields the number of each when it is finished. Ray must be running.

    A worker that dies is replaced and its shard started again; so is a run that was killed. Raises ValueError if the folder
    holds scores of other settings, Outage if a server is away for too long.
    """
    begin(job, backend, judge)
    pending = [shard for shard in range(shards(job)) if not job.scores_file(shard).exists()]
    if not pending:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False  # the caller shows the progress
    rows = ray.data.from_items([{"shard": shard} for shard in pending], override_num_blocks=len(pending))
    if any(_lacks_texts(job.texts_file(shard)) for shard in pending):
        # Backends take none of Ray's CPUs, so that some are left for frames. (Ray fuses stages with equal requests.)
        rows = rows.map(AddFrames(job), num_cpus=1).map(
            AddTexts,
            fn_constructor_args=(job, backend),
            compute=ray.data.ActorPoolStrategy(size=replicas.count),
            num_gpus=replicas.gpus,
            num_cpus=0,
        )
    one = ray.data.ActorPoolStrategy(size=1)  # a single actor, since the judge's limits hold per process
    rows = rows.map(AddVerdicts, fn_constructor_args=(job, judge, patience), compute=one, num_cpus=0)
    yield from (row["shard"] for row in rows.iter_rows())


def shards(job: Job) -> int:
    """Returns the number of shards of a job."""
    return -(-candidate_files.count(job.candidates) // job.shard_size)


def reopen_failed(job: Job) -> int:
    """Reopens shards that have a rollout without text or verdict; returns their number."""
    failed = [shard for shard in range(shards(job)) if job.scores_file(shard).exists() and _incomplete(job.scores_file(shard))]
    for shard in failed:
        job.texts_file(shard).parent.mkdir(exist_ok=True)
        os.replace(job.scores_file(shard), job.texts_file(shard))
    return len(failed)


def _lacks_texts(file: Path) -> bool:
    if not file.exists():
        return True
    table = pq.read_table(file, columns=list(CONDITIONS))
    texts = [pc.struct_field(pc.list_flatten(column), "text") for column in table.columns]
    return any(pc.any(pc.is_null(column)).as_py() for column in texts)


def _incomplete(file: Path) -> bool:
    table = pq.read_table(file, columns=[f"{condition}_correct" for condition in CONDITIONS])
    return any(pc.any(pc.is_null(column)).as_py() for column in table.columns)


def begin(job: Job, backend: VllmSettings | OpenAISettings, judge: JudgeSettings | None) -> None:
    """Saves the settings that decide the scores, or raises ValueError if the folder was begun with others."""
    with job.candidates.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settings: dict[str, Any] = {
        "candidates": digest,
        "prompts": asdict(job.prompts),
        **{name: getattr(job, name) for name in ("rollouts", "seed", "shard_size", "max_pixels")},
        "model": backend.model,
        "engine": backend.engine if isinstance(backend, VllmSettings) else "server",
        "sampling": asdict(backend.sampling),
        "judge": _decisive(judge) if judge else None,
    }
    keep_settings(job.folder / "settings.json", settings)


def _decisive(judge: JudgeSettings) -> dict[str, Any]:
    """Returns the settings of a judge that decide its verdicts."""
    return {"model": judge.model, "mode": judge.mode, "prompt": read_prompt(judge.prompt), "request": judge.request}


def summary(folder: Path) -> dict[str, Any]:
    """Returns, for all finished shards: numbers of candidates and of those without all verdicts, mean numbers of right answers
    of the others by condition, and rollouts without a text or a verdict by reason."""
    counted = [f"{condition}_correct" for condition in CONDITIONS]
    counts = score_files.read(folder, counted)
    complete = counts.drop_null()
    reasons: Counter[str] = Counter()
    errors_only = [f"{condition}.list.element.error" for condition in CONDITIONS]  # texts are most of the file
    for shard in score_files.shards(folder):
        for column in pq.ParquetFile(shard).read(columns=errors_only).columns:
            errors = pc.struct_field(pc.list_flatten(column), "error").drop_null()
            reasons.update(error.split(":")[0] for error in errors.to_pylist())
    return {
        "candidates": len(counts),
        "incomplete": len(counts) - len(complete),
        **{name: pc.mean(complete[name]).as_py() for name in counted},
        "failures": dict(reasons.most_common()),
    }
