"""verl's rows of stage 2, as in its examples (geo3k): ``prompt`` as a chat, ``images`` or ``videos`` for the
placeholders in it, and ``reward_model.ground_truth``."""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.rows import PLACEHOLDER, RowError, Turn

KEYS = ({"prompt", "reward_model"},)
FIELDS = (*of.COMMON, "prompt", "reward_model", "images", "videos", "extra_info")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    turns = of.turns(fields, "prompt")
    if not turns or turns[-1].role != "user":
        raise RowError(f"prompt does not end with what a user says: {fields['prompt']!r:.80}")
    pictures, clips = of.pictures(fields, "images", locate), of.clips(fields, locate, "videos")
    if not any(PLACEHOLDER.search(turn.text) for turn in turns):
        turns[-1] = Turn("user", of.places((*pictures, *clips)) + turns[-1].text)
    return of.identity(fields) | {
        "turns": tuple(turns),
        "observed": of.in_order(turns, pictures, clips),
        "truth": of.truth(of.mapping(fields, "reward_model"), "ground_truth"),
        "options": of.options(of.mapping(fields, "extra_info")),
    }
