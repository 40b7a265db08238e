"""Conversations: a human's question about named frames and a gpt's reply, as in Future-L1-50K and TwiFF's JSON lines."""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.rows import RowError
from future_l1_verl.data.shape import unified
from future_l1_verl.rewards.answer import answer_text

KEYS = ({"conversations"}, *({"conversations", name} for name in (*of.OBSERVED, *of.FUTURE)))
FIELDS = (*of.COMMON, *of.FRAMES, "conversations", "answer")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    turns = of.turns(fields, "conversations")
    leading = turns[:-2]
    if [turn.role for turn in turns[-2:]] != ["user", "assistant"] or any(turn.role != "system" for turn in leading):
        raise RowError(f"conversations are not one turn of human and one of gpt: {fields['conversations']!r:.80}")
    asked, said = turns[-2:]
    frames = of.named_frames(fields, locate)
    response, options = unified(said.text.strip()), of.options(fields)
    answer = unified(of.text(fields, "answer")) if fields.get("answer") is not None or not answer_text(response) else ""
    asking = (*leading, *of.asking(asked.text.strip(), options, frames["observed"]))
    truth = of.answered(response, answer, options)
    return of.identity(fields) | frames | {"turns": asking, "response": response, "truth": truth, "options": options}
