"""A backend for tests of everything around it: texts that depend on nothing but the seed, as fast as they are wanted."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.curation.backends import Question, Sampling, Text, Tokens


def right(seed: int, future: bool) -> bool:
    """Whether the text of a seed holds the right answer: in half of them, and in nine of ten with the future frames."""
    return random.Random(seed).random() < (0.9 if future else 0.5)


@dataclass(frozen=True)
class StubSettings:
    """``truth`` is every candidate's answer, given word for word or, ``freely``, in words that no other text has. Texts take
    ``seconds``; each is noted by its seed in ``log``; seeds in ``failing`` give none as long as the file ``broken`` exists."""

    truth: str
    log: Path
    freely: bool = False
    seconds: float = 0.0
    failing: frozenset[int] = frozenset()
    broken: Path = Path("none")
    model: str = "stub"
    sampling: Sampling = Sampling()  # noqa: RUF009  frozen

    def start(self) -> StubBackend:
        return StubBackend(self)


class StubBackend:
    def __init__(self, settings: StubSettings) -> None:
        self.settings = settings
        self.tokens = Tokens()

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        return [[self._text(question, seed) for seed in question.seeds] for question in questions]

    def _text(self, question: Question, seed: int) -> Text:
        settings = self.settings
        time.sleep(settings.seconds)
        with settings.log.open("a") as log:
            log.write(f"{seed}\n")
        self.tokens.prompt += 10
        self.tokens.generated += 5
        if seed in settings.failing and settings.broken.exists():
            return Text(None, "broken: on purpose")
        images = [part for message in question.chat for part in message["content"] if part["type"] == "image"]
        answer = settings.truth if right(seed, future=len(images) > 2) else "nothing of the kind"
        answer += f", the {seed}th time" if settings.freely else ""
        return Text(f"<reason>{len(images)} frames</reason><answer>{answer}</answer>", None)
