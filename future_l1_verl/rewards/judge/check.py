"""Checks that a server is fit to judge: it answers, in the right form, and mostly correctly."""

import asyncio
import time
from dataclasses import dataclass, replace

from openai import APIConnectionError, APIStatusError

from future_l1_verl import chat
from future_l1_verl.rewards.judge.client import Judge
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


async def _only_model(settings: JudgeSettings) -> str:
    try:
        async with chat.connect(settings.url, chat.read_key(settings.api_key_file), settings.timeout) as client:
            return chat.only(await chat.models(client), client, "--model")
    except APIConnectionError as error:
        raise JudgeUnavailable(f"{settings.url} is unreachable: {error} {error.__cause__ or ''}") from error
    except APIStatusError as error:
        raise JudgeUnavailable(f"{settings.url} gives no list of models; name one with --model. {error}") from error
    except ValueError as error:
        raise JudgeUnavailable(str(error)) from error


async def check(settings: JudgeSettings, model: str | None) -> str | None:
    """Prints a table of verdicts on `EXAMPLES`, and returns what is wrong with the judge, or None.

    It is fit if every reply has the right form and at most one of six verdicts is wrong. ``model`` None means the only model
    that the server lists. Raises JudgeUnavailable if it lists none or several.
    """
    url = settings.url
    model = model or await _only_model(settings)
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
