"""Gets texts from a server with the OpenAI chat API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.curation.backends import Question, Sampling, Text, Tokens
from data_prep.curation.patience import Patience, ask_all, waited
from future_l1_verl.data.prompts import as_sent


@dataclass(frozen=True)
class OpenAISettings:
    """``url`` is the part before ``/chat/completions``; ``concurrency`` bounds the requests of a replica; ``timeout`` is in
    seconds per request."""

    url: str
    model: str
    sampling: Sampling
    patience: Patience
    concurrency: int = 64
    timeout: float = 600.0
    api_key_file: str | None = None

    def start(self) -> OpenAIBackend:
        return OpenAIBackend(self)


class OpenAIBackend:
    """Requests each text separately, with its seed. Waits for the server at the start; raises the server's error if a request
    can never succeed (an unknown model, a wrong key)."""

    def __init__(self, settings: OpenAISettings) -> None:
        from future_l1_verl import chat

        self.settings = settings
        self.tokens = Tokens()
        self.runner = asyncio.Runner()
        self.client = chat.connect(settings.url, chat.read_key(settings.api_key_file), settings.timeout)
        self.runner.run(waited(self._wrong, settings.patience))
        self.request = self.runner.run(self._request())

    def texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        return self.runner.run(self._texts(questions))

    async def _texts(self, questions: Sequence[Question]) -> list[list[Text]]:
        slots = asyncio.Semaphore(self.settings.concurrency)
        chats = [[as_sent(message) for message in question.chat] for question in questions]
        asked = [(number, seed) for number, question in enumerate(questions) for seed in question.seeds]

        async def one(number: int, seed: int) -> Text:
            async with slots:
                return await self._text(chats[number], seed)

        found = await ask_all(
            [lambda key=key: one(*key) for key in asked],
            lambda text: text.text is not None,
            self._wrong,
            self.settings.patience,
        )
        texts = iter(found)
        return [[next(texts) for _ in question.seeds] for question in questions]

    async def _text(self, messages: list[dict[str, Any]], seed: int) -> Text:
        from openai import OpenAIError
        from openai.types.chat import ChatCompletion

        try:
            reply = await self.client.chat.completions.create(
                model=self.settings.model, messages=messages, seed=seed, **self.request
            )
        except (OpenAIError, ValueError) as error:  # a ValueError means that the reply is not JSON
            return Text(None, f"{type(error).__name__}: {error}"[:500])
        if not isinstance(reply, ChatCompletion):
            return Text(None, f"no chat completion: {reply!r}"[:500])
        if reply.usage is not None:
            self.tokens.prompt += reply.usage.prompt_tokens
            self.tokens.generated += reply.usage.completion_tokens
        text = reply.choices[0].message.content if reply.choices else None
        return Text(text, None) if text is not None else Text(None, "no text: the reply holds none")

    async def _wrong(self) -> str | None:
        """Returns what keeps the server from answering at all, or None."""
        from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAIError, PermissionDeniedError

        hello = [{"role": "user", "content": "Hello"}]
        try:
            await self.client.chat.completions.create(model=self.settings.model, messages=hello, max_tokens=1, timeout=60)
        except (AuthenticationError, BadRequestError, NotFoundError, PermissionDeniedError):
            raise
        except (OpenAIError, ValueError) as error:
            return f"{self.settings.url}: {type(error).__name__}: {error}"[:500]
        return None

    async def _request(self) -> dict[str, Any]:
        """Returns the sampling parameters of each request: all that vLLM would otherwise take from the model's files; for
        other servers only those that all servers accept."""
        from openai import APIStatusError

        from future_l1_verl import chat
        from future_l1_verl.decoding.client import NEUTRAL, NEUTRAL_VLLM

        try:
            models = await chat.models(self.client.with_options(max_retries=5))
        except (APIStatusError, ValueError):  # a server need not list its models; vLLM does
            models = []
        vllm = any(model.get("owned_by") == "vllm" for model in models)
        sampling = self.settings.sampling
        return NEUTRAL | {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "extra_body": NEUTRAL_VLLM if vllm else {},
        }
