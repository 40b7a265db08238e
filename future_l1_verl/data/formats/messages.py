"""Chat rows of stage 1: ``messages``, the last of which is learned, and ``videos`` or ``images`` for the places in them."""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.rows import RowError

KEYS = ({"messages"},)
FIELDS = (*of.COMMON, "messages", "images", "videos")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    turns = of.turns(fields, "messages")
    if len(turns) < 2 or turns[-1].role != "assistant" or not turns[-1].text.strip():
        raise RowError("messages: the last of at least two has to be an assistant's, and not empty")
    *asked, said = turns
    shown = of.in_order(asked, of.pictures(fields, "images", locate), of.clips(fields, locate, "videos"))
    return of.identity(fields) | {"turns": tuple(asked), "observed": shown, "response": said.text, "as_given": True}
