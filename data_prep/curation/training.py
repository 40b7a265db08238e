"""Turns a candidate into a row of stage 1 and of stage 2, with its response in the paper's shape (section 1)."""

from typing import Any

import pyarrow as pa

from data_prep.curation.candidates import Candidate
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.shape import in_shape

Row = dict[str, Any]

GAINS = ("gain", "base_correct", "hint_correct")  # columns that ``select`` adds

_SHARED = [
    pa.field("video", pa.string(), nullable=False),  # relative to the folder of the file
    pa.field("image", pa.list_(pa.int32()), nullable=False),
    pa.field("answer", pa.string(), nullable=False),
    pa.field("options", pa.list_(pa.string()), nullable=False),
]  # fmt: skip
SFT = pa.schema([
    pa.field("id", pa.string(), nullable=False),
    *_SHARED,
    pa.field("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])), nullable=False),
    pa.field("reasoning_image", pa.list_(pa.int32()), nullable=False),
    pa.field("cot", pa.string(), nullable=False),  # the response without its frames
    pa.field("category", pa.string(), nullable=False),
    *[pa.field(name, pa.int32(), nullable=False) for name in GAINS],
])  # fmt: skip
RL = pa.schema([
    pa.field("uid", pa.string(), nullable=False),
    *_SHARED,
    pa.field("problem", pa.string(), nullable=False),
    pa.field("data_source", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),  # as of the candidate
    pa.field("split", pa.string(), nullable=False),  # the category
])  # fmt: skip


def sft_row(candidate: Candidate, video: str) -> Row:
    """Returns a row of `SFT`, also for the control ``data.text_only=true``. Raises RowError like `response`."""
    said = response(candidate)
    human, gpt = {"from": "human", "value": candidate["question"]}, {"from": "gpt", "value": said}
    kept = {name: candidate[name] for name in ("id", "reasoning_image", "category", *GAINS)}
    return kept | _shared(candidate, video) | {"conversations": [human, gpt], "cot": said.replace("<image>", "")}


def rl_row(candidate: Candidate, video: str, data_source: str) -> Row:
    """Returns a row of `RL`; the category is added to ``data_source``, by which metrics are grouped."""
    return _shared(candidate, video) | {
        "uid": candidate["id"],
        "problem": candidate["question"],
        "data_source": f"{data_source}/{candidate['category']}" if candidate["category"] else data_source,
        "source": candidate["source"],
        "split": candidate["category"],
    }


def response(candidate: Candidate) -> str:
    """Returns the response of a candidate in the paper's shape. Raises RowError with the reason (`in_shape`)."""
    try:
        return in_shape(candidate["response"], candidate["answer"], len(candidate["reasoning_image"]))
    except ValueError as error:
        raise RowError(str(error)) from error


def _shared(candidate: Candidate, video: str) -> Row:
    return {"video": video} | {name: candidate[name] for name in ("image", "answer", "options")}
