"""Asks a judge over the OpenAI chat API. A failed request is repeated; a failed verdict is None and never a guess."""

import asyncio
import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI

from future_l1_verl import chat
from future_l1_verl.rewards.judge import cache as verdict_cache
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable, read_prompt
from future_l1_verl.rewards.judge.verdict import parse_verdict

LONGEST_PAUSE = 30.0  # seconds
RATE_WINDOW = 1000  # verdicts in the failure rate: only recent ones, so that an outage shows late in a long run as well
RATE_FROM = 20  # the failure rate is defined from this many verdicts on

_REFUSED = {
    400: "it refuses the request",
    401: "it wants another API key",
    403: "the API key may not use it",
    404: "it knows no such model or no such path",
    413: "it refuses the request as too long",
    422: "it refuses the request",
}
_LATER = (408, 409, 425, 429)  # unlike other 4xx, these may succeed later
_PROBE = {"question": "What is one plus one?", "answer": "2", "truth": "2"}  # refused only by a judge that refuses everything
# The thoughts before a reply; the chat template may have opened the block.
_THOUGHTS = re.compile(
    r"(?:\s*<think(?:ing)?>.*?</think(?:ing)?>|(?:(?!<think(?:ing)?>).)*?</think(?:ing)?>)+", re.DOTALL | re.IGNORECASE
)

Content = str | list[dict[str, Any]]
T = TypeVar("T")


@dataclass
class Counts:
    """Counts of a judge's work so far.

    ``asked``: finished verdicts that the server was asked for, including the ``failed`` ones; ``cached``: verdicts from the
    cache or shared with the same question in flight; ``attempts``: requests; ``reasons``: the number of requests without a
    verdict per reason (``timeout``, ``connection``, ``http 500``, ``unusable reply``); ``last_error``: the last such error.
    """

    asked: int = 0
    cached: int = 0
    failed: int = 0
    attempts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    last_error: str = ""


@dataclass
class _Connection:
    loop: asyncio.AbstractEventLoop
    client: AsyncOpenAI
    slots: asyncio.Semaphore
    in_flight: dict[bytes, asyncio.Task[Any]]


class Judge:
    """Asks a judge whether open answers are right (`verdict`), or anything else (`ask`). Use it in one event loop at a time,
    and call `close` in the loop that asked.

    Raises ValueError if the prompt lacks a placeholder or the file of the API key is empty.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.counts = Counts()
        self._template = read_prompt(settings.prompt)
        self._key = chat.read_key(settings.api_key_file)
        self._cache = verdict_cache.VerdictCache(settings.cache)
        self._recent: deque[bool] = deque(maxlen=RATE_WINDOW)  # whether each verdict failed
        self._random = random.Random()  # not the global one, which the training seeds
        self._connection: _Connection | None = None
        self._broken: JudgeUnavailable | None = None

    def require_available(self) -> None:
        """Raises the JudgeUnavailable that was raised before, if any: a job that continues without a judge would keep only
        answers that need no judge."""
        if self._broken is not None:
            raise self._broken

    async def verdict(self, question: str, answer: str, truth: str) -> bool | None:
        """Returns whether ``answer`` is right, given the right answer ``truth``; None if every attempt failed. ``answer`` is
        sent unchanged. Raises what `ask` raises."""
        return await self.ask(self._template, {"question": question, "answer": answer, "truth": truth}, parse_verdict)

    async def ask(
        self, template: str, parts: Mapping[str, str], read: Callable[[str], T | None], images: Sequence[str] = ()
    ) -> T | None:
        """Returns what ``read`` finds in the reply to ``template``; None if every attempt failed. Finding None is a failure.

        ``parts`` replace ``{name}`` in the template; ``images`` are data URLs, shown before it. ``read`` gets the reply
        without the ``<think>...</think>`` that it may begin with, and returns a JSON value; a template must always have the
        same ``read``. A question that is in flight or answered is not asked again; a failed one is. Cancelling one caller does
        not harm others that wait for the same question.

        A request that the server refuses (any 4xx but 408, 409, 425, 429) fails at once. Raises JudgeUnavailable if the server
        refuses the API key (401) or even a harmless question, or if more than ``max_failure_rate`` of the last 1000 verdicts
        failed and there were at least 20.
        """
        more = {name: value for name, value in (("request", self.settings.request), ("images", list(images))) if value}
        key = verdict_cache.key(self.settings.model, template, parts.values(), more)
        known = self._cache.get(key)
        if known is not None:
            self.counts.cached += 1
            return known
        connection = self._connect()
        task = connection.in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(connection, key, _content(_filled(template, parts), images), read))
            connection.in_flight[key] = task
            task.add_done_callback(lambda _: connection.in_flight.pop(key))
        else:
            self.counts.cached += 1
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Closes the connections and cancels verdicts in flight. A later `verdict` connects again; the cache stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            tasks = list(connection.in_flight.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.client.close()

    def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            client = chat.connect(self.settings.url, self._key, self.settings.timeout)
            self._connection = _Connection(loop, client, asyncio.Semaphore(self.settings.concurrency), {})
        return self._connection

    async def _ask(self, connection: _Connection, key: bytes, content: Content, read: Callable[[str], T | None]) -> T | None:
        verdict, refused, pause = None, False, self.settings.backoff
        for attempt in range(self.settings.attempts):
            if attempt > 0:
                pause = min(pause, LONGEST_PAUSE)
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
                pause *= 2
            verdict, refused = await self._attempt(connection, content, read)
            if verdict is not None:
                self._cache.put(key, verdict)
            if verdict is not None or refused:
                break
        if refused:
            await self._require_fit(connection)
        self.counts.asked += 1
        self.counts.failed += verdict is None
        self._recent.append(verdict is None)
        if len(self._recent) >= RATE_FROM and sum(self._recent) / len(self._recent) > self.settings.max_failure_rate:
            raise self._unavailable("too many verdicts failed")
        return verdict

    async def _attempt(
        self, connection: _Connection, content: Content, read: Callable[[str], T | None]
    ) -> tuple[T | None, bool]:
        """Returns what ``read`` finds in the reply, and whether the server refused the request."""
        try:
            body = await self._post(connection, content)
        except (TimeoutError, APITimeoutError):
            return self._miss("timeout", f"no reply within {self.settings.timeout:g} s")
        except APIConnectionError as error:
            return self._miss("connection", f"{error} {error.__cause__ or ''}")
        except APIStatusError as error:
            status = error.status_code
            self._miss(f"http {status}", _said(error))
            if status == 401:  # the key is wrong, whatever the question
                raise self._unavailable(_REFUSED[status]) from error
            return None, _refuses(status)
        text, finish = _reply(body)
        verdict = None if text is None else read(_without_thoughts(text))
        if verdict is None:
            cut = ", cut since max_tokens was reached" if finish == "length" else ""
            self._miss("unusable reply", f"unusable reply{cut}: {body[:500]}")
        return verdict, False

    async def _require_fit(self, connection: _Connection) -> None:
        """Raises JudgeUnavailable if the server also refuses a harmless question: then the question was not the reason."""
        self.require_available()
        try:
            await self._post(connection, _filled(self._template, _PROBE))
        except (TimeoutError, APIConnectionError):
            return  # an outage is not a refusal
        except APIStatusError as error:
            if _refuses(error.status_code):
                self.counts.last_error = _said(error)
                raise self._unavailable(_REFUSED.get(error.status_code, "it refuses every request")) from error

    async def _post(self, connection: _Connection, content: Content) -> str:
        """Returns the body of the reply. Raises TimeoutError and openai's errors."""
        fields = {"temperature": 0, "max_tokens": self.settings.max_tokens} | dict(self.settings.request)
        messages: Any = [{"role": "user", "content": content}]
        # httpx counts its timeout anew for every part of a reply.
        async with connection.slots, asyncio.timeout(self.settings.timeout):
            self.counts.attempts += 1
            reply = await connection.client.chat.completions.with_raw_response.create(
                model=self.settings.model,
                messages=messages,
                extra_body={name: value for name, value in fields.items() if value is not None},
            )
        return reply.text

    def _miss(self, reason: str, error: str) -> tuple[None, bool]:
        self.counts.reasons[reason] += 1
        self.counts.last_error = error
        return None, False

    def _unavailable(self, why: str) -> JudgeUnavailable:
        failed, recent = sum(self._recent), len(self._recent)
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.counts.reasons.most_common())
        self._broken = JudgeUnavailable(
            f"the judge at {self.settings.url}: {why}; of the last {recent} verdicts {failed} failed "
            f"({failed / max(recent, 1):.1%}, at most {self.settings.max_failure_rate:.1%} may); "
            f"requests without a verdict: {reasons}; the last error: {self.counts.last_error}"
        )
        return self._broken


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Fills the template in one pass: placeholders inside a part are not replaced."""
    return re.sub("|".join(rf"\{{{name}\}}" for name in parts), lambda match: parts[match[0][1:-1]], template)


def _content(prompt: str, images: Sequence[str]) -> Content:
    if not images:
        return prompt
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [*shown, {"type": "text", "text": prompt}]


def _without_thoughts(text: str) -> str:
    return text[thoughts.end() :] if (thoughts := _THOUGHTS.match(text)) else text


def _said(error: APIStatusError) -> str:
    return f"HTTP {error.status_code}: {error.response.text[:500]}"


def _refuses(status: int) -> bool:
    return 400 <= status < 500 and status not in _LATER


def _reply(body: str) -> tuple[str | None, str | None]:
    """Returns text and finish reason of a chat completion; None for what is missing."""
    try:
        choice = json.loads(body)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None, None
    return text if isinstance(text, str) else None, finish
