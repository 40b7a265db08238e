"""Asks a model all questions of a task, grades its answers as they arrive, and keeps all finished ones."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from future_l1_verl.data.rows import BadRow, Row, RowError
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.engines import Engine, Reply, Unanswerable
from future_l1_verl.evaluation.grading import grade_reply, mark_reply
from future_l1_verl.evaluation.interventions import Interventions
from future_l1_verl.evaluation.prompting import Prompt, Style, prompt
from future_l1_verl.evaluation.reasoning import is_true
from future_l1_verl.evaluation.runs import Record, RunError
from future_l1_verl.latents.spans import response_layout, role_letters
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.progress import Progress
from future_l1_verl.rewards.answer import answer_text
from future_l1_verl.rewards.judge.client import Judge
from future_l1_verl.rewards.judge.settings import JudgeUnavailable


@dataclass(frozen=True)
class RunOptions:
    """Questions are asked in a ``style``, with at most ``max_frames`` of a clip that is shown whole, and ``concurrency`` of
    them at once. ``latent`` are the checkpoint's settings of spans, None if it has none; ``min_latents`` are opened without a
    decision.
    """

    style: Style
    max_frames: int
    concurrency: int
    latent: LatentSettings | None
    min_latents: int = 1
    save_latents: bool = False
    interventions: Interventions | None = None


@dataclass(frozen=True)
class Grader:
    """Grades by rule, with a ``judge`` for open answers; or, with ``marks``, one of `choices.PROTOCOLS`, by the judge from 0 to
    5. With ``reasons`` a row's response has the true reasons."""

    judge: Judge | None
    marks: str | None
    max_frames: int
    reasons: bool = False

    async def __call__(self, record: Record, row: Row) -> Record:
        """Returns the record with its verdict. Raises JudgeUnavailable."""
        if self.marks:
            verdict = await mark_reply(record.text, row, self.judge, self.marks, self.max_frames)
        else:
            verdict = await grade_reply(record.text, row, self.judge)
        true = is_true(record.text, row.response) if self.reasons and row.response else None
        return replace(record, parsed=verdict.parsed, scores=verdict.scores, error=verdict.error, reasoning_true=true)


async def run(
    questions: Sequence[Row], start: Callable[[], Awaitable[Engine]], grader: Grader, options: RunOptions, folder: Path
) -> None:
    """Asks questions without an answer in ``folder`` and grades answers without a verdict; appends each when it is finished.

    A question that cannot be asked is listed as unanswered (`runs.unanswered`), and asked again by the next run. ``start``
    makes the engine, which is not needed if only verdicts are missing. Raises what engine and judge raise, after it appends
    the answers that still wait for a verdict without one; RunError if an answer of ``folder`` belongs to another question.
    """
    before, rows = {record.row: record for record in runs.records(folder)}, {row.number: row for row in questions}
    _require_same_questions(rows, before, folder)
    unanswered = [row for row in questions if row.number not in before]
    ungraded = [record for record in before.values() if record.scores is None]
    starting: asyncio.Task[Engine] | None = None
    slots = asyncio.Semaphore(options.concurrency)
    bar = Progress(total=len(questions), initial=len(before) - len(ungraded), desc="answers", unit="answer")

    async def grade(record: Record) -> None:
        try:
            graded = await grader(record, rows[record.row])
        except BaseException as error:
            # The judge is unavailable, or another error ends the run and the wait for a verdict.
            why = str(error) if isinstance(error, JudgeUnavailable) else f"the run ended before ({type(error).__name__})"
            runs.append(folder, [replace(record, error=f"no verdict; {why}")])
            raise
        runs.append(folder, [graded])
        bar.update()

    async def answer(row: Row) -> None:
        intervention, donor = options.interventions.of_row(row.number) if options.interventions else (None, None)
        try:
            async with slots:
                shown = await asyncio.to_thread(prompt, row, options.style, options.max_frames)
                reply = await (await starting).ask(shown.chat, row.number, intervention)
        except (RowError, Unanswerable) as error:
            runs.add_unanswered(folder, [BadRow(row.source, str(error))])
            bar.update()
            return
        closed = intervention is not None and intervention.kind == "drop"
        roles, spans = _layout(row, reply, options, closed)
        record = _record(row, shown, reply, roles, spans, donor)
        if options.save_latents:
            runs.save_latents(folder, row.number, reply.latents)
        await grade(record)

    try:
        async with asyncio.TaskGroup() as group:
            for record in ungraded:
                group.create_task(grade(record))
            for row in unanswered:
                group.create_task(answer(row))
            if unanswered:  # last: it may block the loop while the first frames are decoded
                starting = group.create_task(_engine(start))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        bar.close()
        if starting is not None and starting.done() and not starting.cancelled() and starting.exception() is None:
            await starting.result().close()
        if grader.judge is not None:
            await grader.judge.close()


async def _engine(start: Callable[[], Awaitable[Engine]]) -> Engine:
    return await start()


def _require_same_questions(rows: Mapping[int, Row], before: Mapping[int, Record], folder: Path) -> None:
    """Raises RunError if the folder's answers are to other questions: a data file may change under its name."""
    for number, record in before.items():
        row = rows.get(number)
        then = {name: getattr(record, name) for name in ("id", "split", "problem", "truth", "options")}
        for name, value in (_asked(row) if row else dict.fromkeys(then)).items():
            if value != then[name]:
                raise RunError(
                    f"{folder}: the data have changed: row {number} has the {name} {value!r}, and {then[name]!r} where it was "
                    "answered; use another folder"
                )


def _asked(row: Row) -> dict[str, Any]:
    """Returns the fields of a `Record` that describe its question."""
    asked = {"id": row.id, "split": row.category, "problem": row.question, "truth": row.truth}
    return asked | {"options": list(row.options)}


def _layout(row: Row, reply: Reply, options: RunOptions, closed: bool) -> tuple[str, list[int]]:
    """Returns the role of each token, and the number of latents of each span; ``closed``: spans were closed as they opened.
    Raises RuntimeError unless the engine returned one latent per slot."""
    roles, spans = "t" * len(reply.token_ids), []
    if options.latent is not None:
        fewest, most = (0, 0) if closed else (options.min_latents, options.latent.max_latents)
        layout = response_layout(torch.tensor(reply.token_ids, dtype=torch.int64), options.latent.tokens, most, fewest)
        roles, spans = role_letters(layout.roles), (layout.spans[:, 1] - layout.spans[:, 0]).tolist()
    if sum(spans) != len(reply.latents):
        raise RuntimeError(f"{row.source}: {sum(spans)} slots but {len(reply.latents)} latents came back from the engine")
    return roles, spans


def _record(row: Row, shown: Prompt, reply: Reply, roles: str, spans: list[int], donor: int | None) -> Record:
    return Record(
        row=row.number,
        **_asked(row),
        prompt_sha256=shown.sha256,
        video=row.clip,
        frames=shown.frames,
        future=shown.future,
        text=reply.text,
        token_ids=reply.token_ids,
        roles=roles,
        spans=spans,
        finish_reason=reply.finish_reason,
        answer=answer_text(reply.text),
        donor=donor,
    )
