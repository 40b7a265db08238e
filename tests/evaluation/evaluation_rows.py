"""Rows to ask, made of what a test says of them."""

from __future__ import annotations

from typing import Any

from future_l1_verl.data.rows import Clip, Row, Turn
from future_l1_verl.evaluation.prompting import Style


def question(**said: Any) -> Row:
    """A row of ``number, source, id, split, text, truth, options, video, image, future``; with ``image`` None it shows its
    whole clip before the text."""
    text, image, video = said["text"], said.get("image"), str(said["video"])
    pool = video if image is not None or said.get("future") else ""
    return Row(
        turns=(Turn("user", text if image is not None else f"<video>{text}"),),
        observed=(Clip(video),) if image is None else tuple(image),
        future=tuple(said.get("future", ())),
        truth=said["truth"],
        options=tuple(said["options"]),
        video=pool,
        id=said["id"],
        category=said["split"],
        source=said["source"],
        number=said["number"],
    )


def changed(row: Row, **changes: Any) -> Row:
    """A row with something else said of it."""
    image = None if isinstance(row.observed[0], Clip) else list(row.observed)
    said = {
        "number": row.number, "source": row.source, "id": row.id, "split": row.category, "truth": row.truth,
        "text": row.turns[0].text.removeprefix("<video>" if image is None else ""), "options": row.options, "video": row.clip,
        "image": image, "future": row.future,
    }  # fmt: skip
    return question(**said | changes)


def style(system: str | None = None, observed: str = "frames", spans: bool = True, after: str = "") -> Style:
    return Style("latent", system, observed, spans, after)
