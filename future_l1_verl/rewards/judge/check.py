"""Checks that a server is fit to judge: it answers, in the right form, and mostly correctly."""

import asyncio
import json
import time
from dataclasses import dataclass, replace

import aiohttp

from future_l1_verl.rewards.judge.client import Judge, headers
from future_l1_verl.rewards.judge.settings import JudgeSettings, JudgeUnavailable


@dataclass(frozen=True)
class Example:
    """An answer whose right verdict is known."""

    question: str
    truth: str
    answer: str
    right: bool


EXAMPLES = (
    Example("What happens to the ball next?", "It rolls off the table.", "The ball falls from the table's edge.", True),
    Example("What will the woman do next?", "She opens the refrigerator.", "open the fridge", True),
    Example("How many cups are left on the shelf afterwards?", "Three.", "There are 3 cups left.", True),
    Example("What happens to the glass next?", "It breaks on the floor.", "It stays whole on the table.", False),
    Example("Which car reaches the crossing first?", "The red one.", "The blue car gets there first.", False),
    Example(
        "What will the man do after washing his hands?", "He dries them with a towel.", "He begins to wash his hands.", False
    ),
)


async def _served_models(url: str, api_key_file: str | None, timeout: float) -> list[str]:
    session = aiohttp.ClientSession(headers=headers(api_key_file), timeout=aiohttp.ClientTimeout(total=timeout))
    try:
        async with session, session.get(f"{url.rstrip('/')}/models") as response:
            status, body = response.status, await response.read()
        return [model["id"] for model in json.loads(body)["data"]]
    except (TimeoutError, aiohttp.ClientError) as error:
        raise JudgeUnavailable(f"{url}/models is unreachable: {type(error).__name__}: {error}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        said = body.decode(errors="replace")[:500]
        raise JudgeUnavailable(f"{url}/models gives no list of models; name one with --model. HTTP {status}: {said}") from error


async def check(settings: JudgeSettings, model: str | None) -> str | None:
    """Prints a table of verdicts on `EXAMPLES`, and returns what is wrong with the judge, or None.

    It is fit if every reply has the right form and at most one of six verdicts is wrong. ``model`` None means the only model
    that the server lists. Raises JudgeUnavailable if the server gives no list.
    """
    url = settings.url
    if model is None:
        models = await _served_models(url, settings.api_key_file, settings.timeout)
        if len(models) != 1:
            return f"{url} serves {len(models)} models; name one with --model: {', '.join(models)}"
        model = models[0]
    judge = Judge(replace(settings, model=model))

    async def timed(example: Example) -> tuple[bool | None, float]:
        start = time.perf_counter()
        return await judge.verdict(example.question, example.answer, example.truth), time.perf_counter() - start

    try:
        results = await asyncio.gather(*map(timed, EXAMPLES))
    finally:
        await judge.close()
    words = {True: "yes", False: "no", None: "none"}
    print(f"{'question':50} expected  got   seconds")
    for example, (verdict, seconds) in zip(EXAMPLES, results, strict=True):
        print(f"{example.question:50} {words[example.right]:9} {words[verdict]:5} {seconds:.2f}")
    counts = judge.counts
    unanswered = counts.reasons.total() - counts.reasons["unusable reply"]
    if unanswered:
        return f"{model} at {url} does not answer: {unanswered} of {counts.asked} requests failed; {counts.last_error}"
    if counts.failed:
        return f"{model} does not follow the reply format in {counts.failed} of {counts.asked} replies; {counts.last_error}"
    wrong = sum(verdict is not example.right for example, (verdict, _) in zip(EXAMPLES, results, strict=True))
    return f"{model} gives wrong verdicts on {wrong} of {counts.asked} examples" if wrong > 1 else None
