"""The client of servers with the OpenAI chat API: of the judge, of evaluation and of curation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, NotFoundError


def read_key(file: str | Path | None) -> str:
    """Returns the API key in a file; without a file a word that servers without keys ignore, for openai requires one.

    Raises ValueError if the file is empty.
    """
    key = Path(file).read_text(encoding="utf-8").strip() if file is not None else "none"
    if not key:
        raise ValueError(f"api_key_file: {file} is empty")
    return key


def connect(url: str, key: str, timeout: float, retries: int = 0) -> AsyncOpenAI:
    """Returns a client of the server at ``url``, which is the part before ``/chat/completions``.

    ``timeout`` is in seconds for each request. One that fails for a reason that may pass is sent again up to ``retries`` times.
    """
    return AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)


async def models(client: AsyncOpenAI) -> list[dict[str, Any]]:
    """Returns what a server says of each of its models, at least ``id``.

    Raises ValueError if it gives no list, openai's errors if it does not answer.
    """
    try:
        said = (await client.models.with_raw_response.list()).text
    except NotFoundError as error:
        url = client.base_url
        raise ValueError(f"{url} has no list of models ({error.message}); the URL of `vllm serve` ends with /v1") from error
    try:
        return [dict(model, id=str(model["id"])) for model in json.loads(said)["data"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{client.base_url}models gives no list of models: {said[:500]}") from error


def only(listed: Sequence[Mapping[str, Any]], client: AsyncOpenAI, option: str) -> str:
    """Returns the name of the only model. Raises ValueError, with the ``option`` that names one, if there are several."""
    names = [model["id"] for model in listed]
    if len(names) != 1:
        raise ValueError(f"{client.base_url} serves {len(names)} models; name one with {option}: {', '.join(names)}")
    return names[0]
