"""What answers the questions: vLLM engines that Ray places (``vllm``), or a server that speaks the OpenAI API (``openai``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from future_l1_verl.data.prompts import Message


class Question(NamedTuple):
    """A chat, and the seeds of the texts that are wanted."""

    chat: list[Message]
    seeds: list[int]


class Text(NamedTuple):
    """A reply, or why there is none."""

    text: str | None
    error: str | None


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn. The paper does not say; these are stage 2's settings, with room for a reasoning."""

    temperature: float = 0.9
    top_p: float = 0.99
    max_tokens: int = 1024


@dataclass
class Tokens:
    """Numbers of tokens read and written since the backend began."""

    prompt: int = 0
    generated: int = 0


class Backend(Protocol):
    """Made once per replica, where it answers; ``tokens`` only grow."""

    tokens: Tokens

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        """For each question a text per seed. The same seeds give the same texts; what fails is a `Text` with its error."""
        ...
