"""Rows of stage 2: ours (``problem, answer, video, image``), EasyR1's (``problem, answer, images | videos``) and Video-R1's
(``problem, solution, path, data_type``)."""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.rows import RowError, bare
from future_l1_verl.rewards.options import inlined

KEYS = ({"problem", "answer"}, {"problem", "solution"}, {"problem", "answer", "solution"})
FIELDS = (*of.COMMON, *of.FRAMES, "problem", "answer", "solution", "images", "videos", "path", "data_type")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    question, truth = of.text(fields, "problem"), of.truth(fields, "answer", "solution")
    shown, options = _shown(fields, locate), of.choice(fields, bare(question), truth)
    # Our questions are asked unchanged; the others name options, which the prompt has to list.
    listed = options if not shown.get("video") or inlined(question) else ()
    asking = of.asking(question, listed, shown["observed"])
    return of.identity(fields) | shown | {"turns": asking, "truth": truth, "options": options}


def _shown(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    if any(isinstance(item, int | float) for name in of.OBSERVED for item in of.listed(fields, name)):
        return of.named_frames({"reasoning_image": []} | fields, locate)
    kind = fields.get("data_type")
    if (kind is not None or fields.get("path") is not None) and kind not in ("image", "video"):
        raise RowError(f"data_type is one of image, video: {kind!r}")
    given = fields | {f"{kind}s": of.first(fields, "path")[1]} if kind else fields
    pictures = of.pictures(given, "images", locate) or of.pictures(given, "image", locate)
    clips = of.clips(given, locate, "videos", "video", "video_path")
    if pictures and clips:
        raise RowError("both pictures and clips: a problem shows one or the other")
    return {"observed": pictures or clips}
