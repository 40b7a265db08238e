"""The backends that answer questions: vLLM engines placed by Ray (``vllm``), or a server with the OpenAI API (``openai``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from future_l1_verl.data.prompts import Message


class Question(NamedTuple):
    """A chat, and one seed for each text that is wanted."""

    chat: list[Message]
    seeds: list[int]


class Text(NamedTuple):
    """A reply, or why there is none."""

    text: str | None
    error: str | None


@dataclass(frozen=True)
class Sampling:
    """The sampling of texts. The paper does not give it; these are stage 2's settings, with room for reasoning."""

    temperature: float = 0.9
    top_p: float = 0.99
    max_tokens: int = 1024


@dataclass
class Tokens:
    """The numbers of tokens read and written since the backend started."""

    prompt: int = 0
    generated: int = 0


class Backend(Protocol):
    """Answers questions; made once per replica, in its process. ``tokens`` never decrease."""

    tokens: Tokens

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        """Returns for each question a text per seed: the same texts for the same seeds, or a `Text` with an error."""
        ...
