"""A run of the evaluation on real clips, written by hand: what `inspect` reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.data.twiff import frame_numbers
from future_l1_verl.data.video import count_frames, read_frames
from future_l1_verl.evaluation import runs
from future_l1_verl.evaluation.inspection.nearest import Tower, unseen
from future_l1_verl.evaluation.runs import Record
from future_l1_verl.rewards.answer import answer_text, grade
from future_l1_verl.toy import tiny

START, LATENT, END = "<|latent_start|>", "<|latent|>", "<|latent_end|>"
FULL = START + LATENT * 4 + END
SHORT = START + LATENT * 2 + END
ANSWERED = "<answer>{}</answer>"
SCRIPT = "<script>window.obeyed = true</script><img src=nowhere.png onerror='window.obeyed = true'>"

# Text, roles (a letter per token; words count as one) and spans, by the kind of reply.
REPLIES = {
    "plain": (FULL + "<reason>it falls</reason>" + ANSWERED, "tfllle" + "ttt", [4]),
    "two spans": (SHORT + "first" + FULL + "then" + ANSWERED, "tfls" + "t" + "tfllle" + "tt", [2, 4]),
    "hostile": (SCRIPT + FULL + ANSWERED, "t" + "tfllle" + "t", [4]),
    "no span": ("I cannot say.", "ttt", []),
    "cut off": ("<reason>it falls</reason>" + START + LATENT * 3, "t" + "tfll", [3]),
}


@dataclass(frozen=True)
class MadeRun:
    """``imagined`` is by row the number of the frame whose embeddings are the latents of each span."""

    folder: Path
    records: list[Record]
    imagined: dict[int, list[int]]


def make_run(root: Path) -> MadeRun:
    """Every other answer is right, as far as its reply has a place for one; the last has no verdict."""
    write_set(root / "data", Settings(train_questions=1, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(root / "model")
    tower = Tower(root / "model")
    folder = root / "run"
    records, imagined = [], {}
    rows = pd.read_parquet(root / "data/test.parquet").to_dict("records")
    for number, row in enumerate(rows):
        kind = list(REPLIES)[number % len(REPLIES)]
        video = str(root / "data" / row["video"])
        made = _record(number, row, kind, video)
        records.append(made)
        future = unseen(made.frames, count_frames(video))
        if made.spans:
            imagined[number] = [future[span % len(future)] for span in range(len(made.spans))]
            runs.save_latents(folder, number, _latents(tower, video, imagined[number], made.spans))
    records[-1] = replace(records[-1], scores=None, parsed=False, error="the judge did not answer")
    runs.begin(folder, {"model": str(root / "model"), "data": "test.parquet", "questions": len(rows)})
    runs.append(folder, records)
    return MadeRun(folder, records, imagined)


def _record(number: int, row: dict, kind: str, video: str) -> Record:
    text, roles, spans = REPLIES[kind]
    options = list(row["options"])
    said = row["answer"] if number % 2 == 0 else next(option for option in options if option != row["answer"])
    text = text.replace("{}", said)
    verdict = grade(answer_text(text) or "", row["answer"], options)
    return Record(
        row=number,
        id=row["id"],
        split=row["split"],
        prompt_sha256="",
        problem=row["conversations"][0]["value"],
        options=options,
        truth=row["answer"],
        video=video,
        frames=frame_numbers(row["image"].tolist(), count_frames(video)),
        future=[],
        text=text,
        token_ids=[0] * len(roles),
        roles=roles,
        spans=spans,
        finish_reason="length" if kind == "cut off" else "stop",
        answer=answer_text(text),
        parsed=verdict.parsed,
        scores={"accuracy": float(verdict.correct)},
    )


def _latents(tower: Tower, video: str, imagined: list[int], spans: list[int]) -> Tensor:
    embedded = tower.embed(read_frames(video, imagined))
    return torch.cat([frame[:length] for frame, length in zip(embedded, spans, strict=True)])
