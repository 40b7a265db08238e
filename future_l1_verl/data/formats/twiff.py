"""TwiFF: a question about named frames, whose answer is the reasoning with ``<rimage>`` for each future frame, then ``<ans>``.

Its parquet files, TwiFF-Bench (with embedded pictures, or with ``frames`` and ``recon_frames``) and the candidates that
``data_prep.curation`` writes have this form under different names.
"""

from typing import Any

from future_l1_verl.data import fields as of
from future_l1_verl.data.shape import unified

KEYS = tuple({"question", name} for name in (*of.OBSERVED, *of.FUTURE, "question_images"))
FIELDS = (*of.COMMON, *of.FRAMES, "question", "answer", "response")


def parse(fields: of.Fields, locate: of.Locate) -> dict[str, Any]:
    frames = of.named_frames(fields, locate)
    answer, options = unified(of.text(fields, "answer")), of.options(fields)
    response = answer if "<image>" in answer or "<answer>" in answer else ""
    if fields.get("response"):
        response = unified(of.text(fields, "response"))
    asking = of.asking(of.text(fields, "question"), options, frames["observed"])
    truth = of.answered(response, answer, options)
    return of.identity(fields) | frames | {"turns": asking, "response": response, "truth": truth, "options": options}
