"""FutureBench: ``video_path`` and ``qa`` with Question, Options and Answer, or the same fields flat, about a whole clip."""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.first_part import first_part
from future_l1_verl.data.rows import Clip, RowError

KEYS = ({"qa"}, {"Question"}, {"question"})
FIELDS = (*of.COMMON, "video", "video_path", "qa", "question", "Question", "answer", "Answer")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    return questioned(fields, fields | of.mapping(fields, "qa"), locate)


def questioned(fields: of.Fields, said: of.Fields, locate: of.Locate) -> dict[str, Any]:
    """Returns the row of a question about the first part of a clip; ``said`` has question, options and answer."""
    shown = (Clip(first_part(fields, of.text(fields, "video_path", "video"), locate)),)
    question, truth = of.text(said, "question", "Question"), of.truth(said, "answer", "Answer")
    options = of.choice(said, question, truth)
    if not options and len(truth) == 1 and truth.isalpha():
        raise RowError(f"no options: the answer is {truth!r}, but neither a field nor the question has options")
    asking = of.asking(question, options, shown)
    return of.identity(fields) | {"turns": asking, "observed": shown, "truth": truth, "options": options}
