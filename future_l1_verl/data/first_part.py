"""Finds the part of a FutureBench or V1-33K clip that may be shown.

Both name a clip in ``video_dataset``, which includes the future that is asked about; the part before it has the same name in
``first_part_video``.
"""

import filecmp
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from future_l1_verl.data.rows import RowError

WHOLE, FIRST_PART = "video_dataset", "first_part_video"


def first_part(fields: dict[str, Any], video: str, locate: Callable[..., str]) -> str:
    """Returns the path of the first part of a clip. Raises RowError if it is the whole clip, or links to it."""
    first = str(Path(*(FIRST_PART if part.lower() == WHOLE else part for part in Path(video).parts)))
    clip = locate(fields, first, video)
    real = Path(clip).resolve()
    if WHOLE in (part.lower() for part in (*Path(clip).parts, *real.parts)):
        raise RowError(f"the future would be shown: {clip} is the whole clip; {first} is what may be shown")
    whole = Path(*(WHOLE if part.lower() == FIRST_PART else part for part in real.parts))
    if whole != real and os.path.isfile(whole) and os.path.isfile(real) and filecmp.cmp(whole, real, shallow=False):
        raise RowError(f"the future would be shown: {clip} has the content of {whole}, the whole clip")
    return clip
