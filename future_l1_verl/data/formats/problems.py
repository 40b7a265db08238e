"""Rows of stage 2: ours (``problem, answer, video, image``), EasyR1's (``problem, answer, images | videos``) and Video-R1's
(``problem, solution, path, data_type``)."""

from __future__ import annotations

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.first_part import first_part
from future_l1_verl.data.rows import RowError, Shown, bare

KEYS = ({"problem", "answer"}, {"problem", "solution"}, {"problem", "answer", "solution"})
FIELDS = (*of.COMMON, *of.FRAMES, "problem", "answer", "solution", "images", "videos", "path", "data_type")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    question, truth = of.text(fields, "problem"), of.truth(fields, "answer", "solution")
    video, observed, future = _shown(fields, locate)
    options = of.choice(fields, bare(question), truth)
    return of.identity(fields) | {
        "turns": of.asking(question, options, observed),
        "observed": observed,
        "future": future,
        "truth": truth,
        "options": options,
        "video": video,
    }


def _shown(fields: of.Fields, locate: of.Locate) -> tuple[str, tuple[Shown, ...], tuple[Shown, ...]]:
    if any(isinstance(item, int | float) for item in of.listed(fields, "image")):
        return of.named_frames({"reasoning_image": []} | fields, locate)
    of.require_no_frames(fields)
    kind = fields.get("data_type")
    if fields.get("path") is not None and kind not in ("image", "video"):
        raise RowError(f"data_type is one of image, video: {kind!r}")
    given = fields | {f"{kind}s": fields.get("path")} if kind else fields
    pictures = of.pictures(given, "images", locate) or of.pictures(given, "image", locate)
    name = next((name for name in ("videos", "video", "video_path") if given.get(name) is not None), "videos")
    clips = of.clips({"videos": given.get(name)}, lambda _, video: first_part(fields, video, locate))
    if pictures and clips:
        raise RowError("both pictures and clips: a problem shows one or the other")
    return "", pictures or clips, ()
