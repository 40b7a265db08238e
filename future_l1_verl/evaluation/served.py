"""Gets answers from a running ``vllm serve CHECKPOINT`` over the OpenAI chat API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai import APIStatusError, BadRequestError

from future_l1_verl import chat
from future_l1_verl.data.prompts import Message, as_sent, vision_inputs
from future_l1_verl.decoding.client import NEUTRAL, NEUTRAL_VLLM, chat_options, choice_latents
from future_l1_verl.evaluation.engines import Decoding, Reply, Unanswerable
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.tokens import LatentSettings

RETRIES = 5
TIMEOUT = 600.0  # seconds
REFUSALS = (400, 413, 422)  # of one request: too long, too large, filtered


class ServedEngine:
    """Asks a server of the same checkpoint as ``checkpoint``, whose processor resizes the frames before they are sent."""

    def __init__(
        self, url: str, model: str, checkpoint: Path, latent: LatentSettings | None, decoding: Decoding, key: str
    ) -> None:
        from transformers import AutoProcessor

        self.client = chat.connect(url, key, TIMEOUT, RETRIES)
        self.model, self.decoding = model, decoding
        self.patch_size = AutoProcessor.from_pretrained(checkpoint).image_processor.patch_size
        self.start = latent.tokens.start if latent else None

    @classmethod
    async def connect(
        cls, url: str, model: str | None, checkpoint: Path, latent: LatentSettings | None, decoding: Decoding, key: str
    ) -> ServedEngine:
        """Connects to a server; ``model`` is by default the only one that it serves. Raises ValueError if there are several, or
        if the server does not support latents; openai's errors if it does not answer."""
        engine = cls(url, model or "", checkpoint, latent, decoding, key)
        listed = await chat.models(engine.client)
        engine.model = model or chat.only(listed, engine.client, "--served-name")
        if decoding.spans:
            await engine.require_latents()
        return engine

    async def require_latents(self) -> None:
        """Raises ValueError unless the server refuses a request for spans of no latents, as only engines with latents do."""
        hello = [{"role": "user", "content": "Hello"}]
        impossible = chat_options(max_latents=0)
        try:
            await self.client.with_options(max_retries=0).chat.completions.create(
                model=self.model, messages=hello, max_tokens=1, extra_body=impossible
            )
        except BadRequestError as error:
            if "max_latents" in error.message:
                return
            raise
        raise ValueError(
            f"{self.client.base_url} does not decode latents: is future-l1-verl installed where `vllm serve` runs, and has the "
            "checkpoint the tokens?"
        )

    async def ask(self, chat: Sequence[Message], row: int, intervention: Intervention | None) -> Reply:
        """Returns the reply to a chat. Raises Unanswerable if the server refuses the question or its reply is incomplete,
        openai's errors after some attempts, and RuntimeError for a server of another kind."""
        extra: dict[str, Any] = NEUTRAL_VLLM | {"skip_special_tokens": False, "return_token_ids": True}
        if self.decoding.spans:
            extra |= chat_options(**self.decoding.options(intervention))
        elif self.start is not None:
            extra["logit_bias"] = {self.start: -100.0}
        request = NEUTRAL | self.decoding.sampling(row) | {"model": self.model, "messages": self._as_sent(chat)}
        try:
            reply = await self.client.chat.completions.create(**request, extra_body=extra)
        except APIStatusError as error:
            if error.status_code in REFUSALS:
                raise Unanswerable(f"{self.client.base_url} refuses the question: {error.message}") from error
            raise
        (choice,) = reply.choices
        text, ids = choice.message.content, choice.model_extra.get("token_ids")
        if ids is None:
            raise RuntimeError(f"{self.client.base_url} sends no token ids with its answers; is it `vllm serve`?")
        if text is None or choice.finish_reason not in ("stop", "length"):
            said = f"finish_reason {choice.finish_reason!r}, {'no' if text is None else 'a'} text"
            raise Unanswerable(f"{self.client.base_url} sent no whole answer ({said}); see its log")
        return Reply(text, ids, choice.finish_reason, choice_latents(choice))

    def _as_sent(self, chat: Sequence[Message]) -> list[dict[str, Any]]:
        images, _ = vision_inputs(chat, self.patch_size)
        sized = iter(images or [])
        return [as_sent(message, lambda _: next(sized)) for message in chat]

    async def close(self) -> None:
        await self.client.close()
