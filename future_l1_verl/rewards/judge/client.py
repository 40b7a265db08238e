"""Asking a judge that speaks the OpenAI chat API, without losing a verdict or inventing one."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from future_l1_verl.rewards.judge import cache as verdict_cache
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable, read_prompt
from future_l1_verl.rewards.judge.verdict import parse_verdict

LONGEST_PAUSE = 30.0  # seconds
RATE_WINDOW = 1000  # verdicts that the failure rate looks back on: an outage must show late in a long run as well
RATE_FROM = 20  # verdicts before which there is no failure rate

_REFUSED = {
    400: "it refuses the request",
    401: "it wants another API key",
    403: "the API key may not use it",
    404: "it knows no such model or no such path",
    413: "it refuses the request as too long",
    422: "it refuses the request",
}
_LATER = (408, 409, 425, 429)  # the other 4xx: the same request may do better later
_PROBE = {"question": "What is one plus one?", "answer": "2", "truth": "2"}  # refused only by a judge that refuses everything
# What a model thought before it replied; the block may have been opened by its chat template.
_THOUGHTS = re.compile(
    r"(?:\s*<think(?:ing)?>.*?</think(?:ing)?>|(?:(?!<think(?:ing)?>).)*?</think(?:ing)?>)+", re.DOTALL | re.IGNORECASE
)

Content = str | list[dict[str, Any]]
T = TypeVar("T")


@dataclass
class Counts:
    """What a judge did so far.

    ``asked``: verdicts asked of the server that came to an end, the ``failed`` among them; ``cached``: those from the cache or
    shared with the same question in flight; ``attempts``: requests; ``reasons``: how many requests for a verdict gave none, by
    reason (``timeout``, ``connection``, ``http 500``, ``unusable reply``); ``last_error``: the last of them in words.
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
    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    in_flight: dict[bytes, asyncio.Task[Any]]


class Judge:
    """Asks a judge about open answers: `verdict` whether they are right, `ask` anything. For one event loop at a time; `close`
    belongs in the loop that asked.

    Raises ValueError if the prompt lacks a placeholder or the file of the API key is empty.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.counts = Counts()
        self._template = read_prompt(settings.prompt)
        self._headers = headers(settings.api_key_file)
        self._cache = verdict_cache.VerdictCache(settings.cache)
        self._recent: deque[bool] = deque(maxlen=RATE_WINDOW)  # whether each verdict failed
        self._random = random.Random()  # not the global one, which the training seeds
        self._connection: _Connection | None = None
        self._broken: JudgeUnavailable | None = None

    def require_available(self) -> None:
        """Raises the JudgeUnavailable that was raised before, if any: a job that goes on without a judge would keep only the
        answers that need none."""
        if self._broken is not None:
            raise self._broken

    async def verdict(self, question: str, answer: str, truth: str) -> bool | None:
        """Whether ``answer`` is right, ``truth`` being right; None if every attempt failed. ``answer`` is sent as it is. `ask`
        says what is raised."""
        return await self.ask(self._template, {"question": question, "answer": answer, "truth": truth}, parse_verdict)

    async def ask(
        self, template: str, parts: Mapping[str, str], read: Callable[[str], T | None], images: Sequence[str] = ()
    ) -> T | None:
        """What ``read`` finds in the reply to ``template``; None if every attempt failed. Finding None is a failure too.

        ``parts`` stand in the template as ``{name}``; ``images`` are data URLs, shown before it. ``read`` gets the reply
        without the ``<think>...</think>`` that it may begin with. What is found is a JSON value, and a template has one reader:
        the same question while it is in flight, or after an answer, is not asked again; after a failure it is. Whoever waits
        may be cancelled without harm to others who wait for the same.

        A request that the server refuses (any 4xx but 408, 409, 425, 429) fails at once. Raises JudgeUnavailable if the server
        refuses the API key (401) or also a question that nothing is wrong with, or if more than ``max_failure_rate`` of the
        last 1000 verdicts failed and there were at least 20.
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
        """Ends the connections, and verdicts in flight with them. A later `verdict` connects anew; the cache stays."""
        connection, self._connection = self._connection, None
        if connection is not None:
            tasks = list(connection.in_flight.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.session.close()

    def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
                connector=aiohttp.TCPConnector(limit=0),  # the slots are the limit; waiting for one is no part of the timeout
            )
            self._connection = _Connection(loop, session, asyncio.Semaphore(self.settings.concurrency), {})
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
        """What ``read`` finds in the reply, and whether the server refused the request."""
        try:
            status, body = await self._post(connection, content)
        except TimeoutError:
            return self._miss("timeout", f"no reply within {self.settings.timeout:g} s")
        except aiohttp.ClientError as error:
            return self._miss("connection", f"{type(error).__name__}: {error}")
        if status != 200:
            self._miss(f"http {status}", _said(status, body))
            if status == 401:  # no question is to blame for the key
                raise self._unavailable(_REFUSED[status])
            return None, _refuses(status)
        text, finish = _reply(body)
        verdict = None if text is None else read(_without_thoughts(text))
        if verdict is None:
            cut = ", cut since max_tokens was reached" if finish == "length" else ""
            self._miss("unusable reply", f"unusable reply{cut}: {_said(status, body)}")
        return verdict, False

    async def _require_fit(self, connection: _Connection) -> None:
        """Raises JudgeUnavailable if the server refuses what no judge has a reason to refuse; then it was not the question."""
        self.require_available()
        try:
            status, body = await self._post(connection, _filled(self._template, _PROBE))
        except (TimeoutError, aiohttp.ClientError):
            return  # an outage is no refusal
        if _refuses(status):
            self.counts.last_error = _said(status, body)
            raise self._unavailable(_REFUSED.get(status, "it refuses every request"))

    async def _post(self, connection: _Connection, content: Content) -> tuple[int, bytes]:
        """Status and body of the reply. Raises TimeoutError and aiohttp.ClientError."""
        request = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.settings.max_tokens,
        } | dict(self.settings.request)
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        sent = {name: value for name, value in request.items() if value is not None}
        async with connection.slots:
            self.counts.attempts += 1
            async with connection.session.post(url, json=sent) as response:
                return response.status, await response.read()

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


def headers(api_key_file: str | None) -> dict[str, str]:
    if api_key_file is None:
        return {}
    api_key = Path(api_key_file).read_text(encoding="utf-8").strip()
    if not api_key:
        raise ValueError(f"api_key_file: {api_key_file} is empty")
    return {"Authorization": f"Bearer {api_key}"}


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """In one pass: a placeholder that stands in a part is a part of it."""
    return re.sub("|".join(rf"\{{{name}\}}" for name in parts), lambda match: parts[match[0][1:-1]], template)


def _content(prompt: str, images: Sequence[str]) -> Content:
    if not images:
        return prompt
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [*shown, {"type": "text", "text": prompt}]


def _without_thoughts(text: str) -> str:
    return text[thoughts.end() :] if (thoughts := _THOUGHTS.match(text)) else text


def _said(status: int, body: bytes) -> str:
    return f"HTTP {status}: {body.decode(errors='replace')[:500]}"


def _refuses(status: int) -> bool:
    return 400 <= status < 500 and status not in _LATER


def _reply(body: bytes) -> tuple[str | None, str | None]:
    """Text and finish reason of a chat completion; None for what it does not have."""
    try:
        choice = json.loads(body)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None, None
    return text if isinstance(text, str) else None, finish
