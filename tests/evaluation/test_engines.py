"""The engine of this machine and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vllm.exceptions import VLLMValidationError

from future_l1_verl.evaluation.engines import Decoding, LocalEngine, LocalSettings, Unanswerable
from future_l1_verl.toy import tiny


class Refusing:
    """An engine that finds each prompt too long, as vLLM says it: by an error that is a ValueError in some versions only."""

    async def generate(self, *_: object, **__: object) -> AsyncIterator[None]:
        raise VLLMValidationError("a prompt of 257 tokens")
        yield


def test_a_prompt_that_vllm_refuses_is_no_end_of_the_run(tmp_path: Path) -> None:
    tiny.build(tmp_path)
    engine = LocalEngine(LocalSettings(tmp_path, Decoding(max_tokens=4), {}), Refusing())
    chat = [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]
    with pytest.raises(Unanswerable, match="a prompt of 257 tokens"):
        asyncio.run(engine.ask(chat, 0, None))
