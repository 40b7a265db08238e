"""Multiple-choice examples as rows in TwiFF's form, from which both stages and evaluation take what they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

Row = dict[str, Any]
LETTERS = "ABCD"
ANSWERS = ("text", "letter")


@dataclass(frozen=True)
class Example:
    """A question about a clip with four options, of which ``options[right]`` is the answer.

    ``image`` and ``reasoning_image`` are 1-based entries of the clip's frame pool: the frames shown, and the frame imagined
    before each of ``reasons``. ``video`` is a path relative to the set's directory.
    """

    id: str
    split: str
    data_source: str
    video: str
    question: str
    options: Sequence[str]
    right: int
    image: Sequence[int]
    reasoning_image: Sequence[int]
    reasons: Sequence[str]

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(LETTERS):
            raise ValueError(f"{self.id}: needs {len(LETTERS)} different options, not {list(self.options)}")
        if len(self.reasons) != len(self.reasoning_image):
            raise ValueError(f"{self.id}: {len(self.reasons)} reasons for {len(self.reasoning_image)} imagined frames")

    @property
    def letter(self) -> str:
        return LETTERS[self.right]

    @property
    def problem(self) -> str:
        """A placeholder for each frame shown, the question, and the options, one per line."""
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)]
        return "\n".join(["<image>" * len(self.image) + self.question, *lines])

    def row(self, answers: str) -> Row:
        """Returns a row; the ``gpt`` turn imagines a frame before each reason. ``answers`` is "text" or "letter"."""
        reasons = [f"<reason>{reason}</reason>" for reason in self.reasons]
        answer = f"<answer>{self._answer(answers)}</answer>"
        response = "".join(f"<image>{reason}" for reason in reasons) + answer
        return {
            "id": self.id,
            "split": self.split,
            "data_source": self.data_source,
            "video": self.video,
            "image": list(self.image),
            "answer": self._answer(answers),
            "letter": self.letter,
            "options": list(self.options),
            "conversations": [{"from": "human", "value": self.problem}, {"from": "gpt", "value": response}],
            "reasoning_image": list(self.reasoning_image),
            "cot": "".join(reasons) + answer,
        }

    def _answer(self, answers: str) -> str:
        if answers not in ANSWERS:
            raise ValueError(f"answers must be one of {', '.join(ANSWERS)}, not {answers!r}")
        return self.options[self.right] if answers == "text" else self.letter


def write_table(out: Path, part: str, examples: Sequence[Example], answers: str) -> None:
    """Writes ``{part}.parquet``."""
    pd.DataFrame([example.row(answers) for example in examples]).to_parquet(out / f"{part}.parquet", index=False)
