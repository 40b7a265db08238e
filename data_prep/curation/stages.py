"""The stages of a shard of candidates: frames, then texts, then verdicts. Each adds only the missing values.

Between texts and verdicts a shard is a file in ``rollouts/``, at the end one in ``scores/``: results are in memory only for the
time of one shard.
"""

import pickle
import time
from typing import Any

from data_prep.curation import questions
from data_prep.curation import scores as score_files
from data_prep.curation.backends import Question
from data_prep.curation.backends.openai import OpenAISettings
from data_prep.curation.backends.vllm import VllmSettings
from data_prep.curation.candidates import Candidate
from data_prep.curation.job import Job
from data_prep.curation.patience import Patience
from data_prep.curation.questions import Shown
from data_prep.curation.scores import CONDITIONS
from data_prep.curation.verdicts import Asked, Verdicts
from future_l1_verl.data.rows import RowError, bare
from future_l1_verl.rewards.answer import Grade
from future_l1_verl.rewards.judge.settings import JudgeSettings

Row = dict[str, Any]


def _lacking(rollouts: list[Row]) -> list[Row]:
    return [rollout for rollout in rollouts if rollout["text"] is None]


class AddFrames:
    """Adds, as ``work``, the frames of candidates that lack a text."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, row: Row) -> Row:
        started, shard = time.monotonic(), row["shard"]
        found, scores, _ = self.job.begun(shard)
        shown = [
            self._frames(candidate) if any(_lacking(score[condition]) for condition in CONDITIONS) else None
            for candidate, score in zip(found, scores, strict=True)
        ]
        return {"shard": shard, "work": pickle.dumps((shown, time.monotonic() - started))}

    def _frames(self, candidate: Candidate) -> Shown | str:
        """Returns a candidate's frames, or why there are none."""
        try:
            return questions.decode(candidate, self.job.videos, self.job.max_pixels)
        except RowError as error:
            return str(error)


class AddTexts:
    """Adds texts and saves them in ``rollouts/``."""

    def __init__(self, job: Job, backend: VllmSettings | OpenAISettings) -> None:
        started = time.monotonic()
        self.job = job
        self.backend = backend.start()
        self.start_s = time.monotonic() - started

    def __call__(self, row: Row) -> Row:
        started, shard, (shown, decode_s) = time.monotonic(), row["shard"], pickle.loads(row["work"])
        found, scores, measured = self.job.begun(shard)
        wanted: list[tuple[list[Row], Question]] = []
        for candidate, score, frames in zip(found, scores, shown, strict=True):
            for condition in CONDITIONS:
                lacking = _lacking(score[condition])
                if isinstance(frames, str):
                    for rollout in lacking:
                        rollout["error"] = frames
                elif lacking:
                    chat = self.job.prompts.chat(condition, candidate, frames)
                    wanted.append((lacking, Question(chat, [rollout["seed"] for rollout in lacking])))
        measured.update(self._fill(wanted))
        png = [frame for one in shown if isinstance(one, Shown) for frame in one.observed + one.future]
        measured.update({"decode_s": decode_s, "bytes": sum(map(len, png)), "engine_start_s": self.start_s})
        measured.update({"generate_s": time.monotonic() - started})
        self.start_s = 0.0
        score_files.write(self.job.texts_file(shard), scores, measured)
        return {"shard": shard}

    def _fill(self, wanted: list[tuple[list[Row], Question]]) -> dict[str, float]:
        """Sets text and error of rollouts; returns the measurements."""
        tokens = self.backend.tokens
        prompt, generated = tokens.prompt, tokens.generated
        answers = self.backend.texts([question for _, question in wanted]) if wanted else []
        for (rollouts, _), texts in zip(wanted, answers, strict=True):
            for rollout, text in zip(rollouts, texts, strict=True):
                rollout.update(text._asdict())
        return {
            "prompt_tokens": tokens.prompt - prompt,
            "generated_tokens": tokens.generated - generated,
            "rollouts": sum(len(rollouts) for rollouts, _ in wanted),
        }


class AddVerdicts:
    """Adds verdicts and counts, and saves the shard in ``scores/``."""

    def __init__(self, job: Job, judge: JudgeSettings | None, patience: Patience) -> None:
        self.job = job
        self.verdicts = Verdicts(judge, patience)

    def __call__(self, row: Row) -> Row:
        started, calls, shard = time.monotonic(), self.verdicts.calls, row["shard"]
        found, scores, measured = self.job.begun(shard)
        wanted = [
            (rollout, _asked(candidate, rollout["text"]))
            for candidate, score in zip(found, scores, strict=True)
            for condition in CONDITIONS
            for rollout in score[condition]
            if rollout["text"] is not None and rollout["correct"] is None
        ]
        for (rollout, _), grade in zip(wanted, self.verdicts.grades([asked for _, asked in wanted]), strict=True):
            if isinstance(grade, Grade):
                rollout.update(correct=grade.correct, parsed=grade.parsed, error=None)
            else:
                rollout["error"] = grade
        for score in scores:
            for condition in CONDITIONS:
                correct = [rollout["correct"] for rollout in score[condition]]
                score[f"{condition}_correct"] = None if None in correct else sum(correct)
        measured.update({"judge_s": time.monotonic() - started, "judge_calls": self.verdicts.calls - calls})
        score_files.write(self.job.scores_file(shard), scores, measured)
        self.job.texts_file(shard).unlink(missing_ok=True)
        return {"shard": shard}


def _asked(candidate: Candidate, text: str) -> Asked:
    return Asked(text, bare(candidate["question"]), candidate["answer"], candidate["options"])
