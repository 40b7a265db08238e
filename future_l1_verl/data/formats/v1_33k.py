"""V1-33K's main file: ``video_split``, ``ds_reasoning``, and a question with options (``mc_qa``) and an open one (``oe_qa``).

The row uses the question with options, and the open one only if there is no other.
"""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.formats.futurebench import questioned
from future_l1_verl.data.rows import RowError

KEYS = ({"mc_qa"}, {"oe_qa"}, {"mc_qa", "oe_qa"})
FIELDS = (*of.COMMON, "video", "video_path", "mc_qa", "oe_qa")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    name = "mc_qa" if fields.get("mc_qa") else "oe_qa"
    found = of.listed(fields, name)
    if len(found) != 1:
        raise RowError(f"{name} is not one question: there are {len(found)}")
    return questioned(fields, of.mapping({name: found[0]}, name), locate)
