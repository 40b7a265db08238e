"""``vllm serve`` of a checkpoint with latent tokens and no flag about them, over the OpenAI chat API."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chat_server
import numpy as np
import openai
import pytest
from decoding_harness import PARITY, Agreement, Oracle, Prompt, span_lengths
from openai import OpenAI
from openai.types.chat import ChatCompletion
from PIL import Image
from vllm_server import SMALL, serving

from future_l1_verl.data.prompts import Message, as_sent, processor_inputs
from future_l1_verl.decoding.client import NEUTRAL, NEUTRAL_VLLM, chat_options, choice_latents
from future_l1_verl.evaluation.engines import Decoding, Reply
from future_l1_verl.evaluation.served import ServedEngine
from future_l1_verl.latents.interventions import Intervention
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings

pytestmark = pytest.mark.engine

# Both sides are multiples of 32 pixels, so that no processor resizes it.
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 64, 3), dtype=np.uint8))
CHATS: list[list[Message]] = [
    [{"role": "user", "content": [{"type": "text", "text": "what happens next?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "the ball moves left and then right " * 6}]}],
    [{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "what happens next?"}]}],
]


PAGE = (Path(__file__).parents[2] / "docs/guides/serving.md").read_text()
QUICKSTART = "runs/quickstart-synthetic-seed1/rl/global_step_18/actor/huggingface"

# What a checkpoint may ask of whoever samples from it; a random model repeats itself unless it is much the worse for it.
GENERATION = {"repetition_penalty": 20.0, "top_k": 20, "min_p": 0.01}


@pytest.fixture(scope="module")
def url(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    copy = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("served") / "checkpoint")
    (copy / "generation_config.json").write_text(json.dumps(GENERATION))
    with serving(str(copy), "--served-model-name", tiny_checkpoint, *SMALL) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


def arguments(oracle: Oracle, chat: list[Message], extra: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Of a chat completion; ``extra`` is what the API lets through to vLLM."""
    return (
        {
            "model": oracle.model.name_or_path,
            "messages": [as_sent(message) for message in chat],
            "max_tokens": 48,
            "temperature": 1.0,
            "logprobs": True,
            "logit_bias": {str(token): value for token, value in oracle.bias.items()},
            "extra_body": {"ignore_eos": True, "return_token_ids": True} | NEUTRAL_VLLM | (extra or {}),
        }
        | NEUTRAL
        | changed
    )


def ask(client: OpenAI, oracle: Oracle, chat: list[Message], extra: dict[str, Any] | None = None, **changed: Any) -> Any:
    return client.chat.completions.create(**arguments(oracle, chat, extra, **changed))


def ask_all(client: OpenAI, oracle: Oracle, extra: dict[str, Any], **changed: Any) -> list[ChatCompletion]:
    """Every chat, all at once."""
    with ThreadPoolExecutor(len(CHATS)) as pool:
        return list(pool.map(lambda chat: ask(client, oracle, chat, extra, **changed), CHATS))


def compare(oracle: Oracle, replies: list[ChatCompletion], **options: Any) -> Agreement:
    """Replies to ``CHATS`` against the oracle, with their own log-probs and latents."""
    outputs = [
        SimpleNamespace(
            prompt_token_ids=reply.model_extra["prompt_token_ids"],
            outputs=[
                SimpleNamespace(
                    index=choice.index,
                    token_ids=token_ids(choice),
                    finish_reason=choice.finish_reason,
                    routed_experts=choice_latents(choice).numpy(),
                    logprobs=[{token: entry} for token, entry in zip(token_ids(choice), choice.logprobs.content, strict=True)],
                )
                for choice in reply.choices
            ],
        )
        for reply in replies
    ]
    prompts = [Prompt({}, dict(processor_inputs(oracle.processor, chat))) for chat in CHATS]
    return oracle.compare(outputs, prompts, **options)


def token_ids(choice: Any) -> list[int]:
    return choice.model_extra["token_ids"]


def test_an_answer_is_text_and_nothing_else(client: OpenAI, oracle: Oracle) -> None:
    (choice,) = ask(client, oracle, CHATS[0]).choices
    assert choice.message.content and not any(token in choice.message.content for token in CONTROL_TOKENS)
    assert choice.model_extra["routed_experts"] is None and choice_latents(choice).numel() == 0
    assert token_ids(choice).count(oracle.settings.tokens.latent) > 5, "it was thought of in latents all the same"


def test_latents_come_to_those_who_ask_and_are_the_oracle_s(client: OpenAI, oracle: Oracle) -> None:
    """Text and images, all at once, two choices each."""
    replies = ask_all(client, oracle, chat_options(return_latents=True), n=2)
    agreement = compare(oracle, replies)
    print(agreement)
    assert agreement.worst <= PARITY
    assert agreement.slots > 80 and sum(agreement.roles.values()) == 48 * 2 * len(CHATS)
    for reply in replies:
        first, second = reply.choices
        assert token_ids(first) != token_ids(second)
        assert not any(token in first.message.content for token in CONTROL_TOKENS)


def test_options_of_a_request_are_obeyed(client: OpenAI, oracle: Oracle) -> None:
    replies = ask_all(client, oracle, chat_options(max_latents=2, return_latents=True), n=2)
    assert compare(oracle, replies, max_latents=2).worst <= PARITY
    settings = LatentSettings(oracle.settings.tokens, 2)
    lengths = [n for reply in replies for choice in reply.choices for n in span_lengths(token_ids(choice), settings)]
    assert set(lengths) == {1, 2}


def test_latents_are_replaced_on_request(client: OpenAI, oracle: Oracle) -> None:
    options = chat_options(intervention=Intervention("zero"), return_latents=True)
    (choice,) = ask(client, oracle, CHATS[2], options).choices
    latents = choice_latents(choice)
    assert len(latents) == token_ids(choice).count(oracle.settings.tokens.latent) > 5
    assert (latents == 0).all()


@pytest.mark.parametrize("place", [0, 1])
def test_the_page_of_clients_works_as_it_is(
    place: int, url: str, tiny_checkpoint: str, oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/guides/serving.md: with this package, and without. The bias is for a random model, which seldom opens a span."""
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[place]
    assert program.count("http://localhost:8000/v1") == program.count(QUICKSTART) == 1
    (tmp_path / "frames").mkdir()
    IMAGE.save(tmp_path / "frames" / "1.png")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    biased = f"seed=1, logit_bias={ {str(token): value for token, value in oracle.bias.items()} }, temperature"
    program = program.replace("http://localhost:8000/v1", url).replace(QUICKSTART, tiny_checkpoint)
    exec(program.replace("temperature", biased), found)
    assert found["reply"].choices[0].message.content
    assert found["latents"].shape[0] > 5 and found["latents"].shape[1] == oracle.model.config.text_config.hidden_size


def test_a_streamed_answer_is_the_same_text(client: OpenAI, oracle: Oracle) -> None:
    whole = ask(client, oracle, CHATS[1], seed=3).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(client, oracle, CHATS[1], seed=3, stream=True)]
    assert len(pieces) > 5 and "".join(pieces) == whole
    assert ask(client, oracle, CHATS[1], seed=4).choices[0].message.content != whole


REFUSED: dict[str, dict[str, Any]] = {
    "need 1 <= min_latents <= max_latents, not 1 and 0": chat_options(max_latents=0),
    "did you mean return_latents": {"vllm_xargs": {"return_latent": True}},
    "unknown latent option budget": {"vllm_xargs": {"latent": '{"budget": 4}'}},
    "seed must be a whole number": {"vllm_xargs": {"latent": '{"seed": "x"}'}},
    "sigma > 0 needs a seed": chat_options(sigma=0.5),
    "structured output": {"response_format": {"type": "json_object"}},
}


def test_a_request_that_cannot_work_is_told_why_and_fails_alone(client: OpenAI, oracle: Oracle) -> None:
    """All of them on one connection, beside a request that can."""
    with ThreadPoolExecutor(1) as pool:
        good = pool.submit(ask, client, oracle, CHATS[0], chat_options(return_latents=True), max_tokens=200)
        for reason, extra in REFUSED.items():
            with pytest.raises(openai.BadRequestError, match=reason):
                ask(client, oracle, CHATS[0], extra)
        assert len(choice_latents(good.result().choices[0])) > 20
    with pytest.raises(openai.BadRequestError, match="comes with 0 latents"):
        ask(client, oracle, [{"role": "user", "content": [{"type": "text", "text": CONTROL_TOKENS[1]}]}])
    assert compare(oracle, ask_all(client, oracle, chat_options(return_latents=True))).worst <= PARITY


def evaluated(address: str, checkpoint: Path, oracle: Oracle, decoding: Decoding) -> list[Reply]:
    """The chats as an evaluation by URL asks them."""

    async def ask_through() -> list[Reply]:
        engine = await ServedEngine.connect(address, None, checkpoint, oracle.settings, decoding, "none")
        try:
            return [await engine.ask(chat, 0, None) for chat in CHATS]
        finally:
            await engine.close()

    return asyncio.run(ask_through())


def test_an_evaluation_knows_a_server_of_latents(url: str, tiny_checkpoint: str, oracle: Oracle) -> None:
    for reply in evaluated(url, Path(tiny_checkpoint), oracle, Decoding(max_tokens=8)):
        assert len(reply.token_ids) == 8 or reply.finish_reason == "stop"
    with chat_server.serving() as stock, pytest.raises(ValueError, match="does not decode latents"):
        evaluated(stock.url, Path(tiny_checkpoint), oracle, Decoding(max_tokens=8))


def test_an_evaluation_is_not_swayed_by_the_checkpoint_s_generation_config(
    url: str, client: OpenAI, tiny_checkpoint: str, oracle: Oracle
) -> None:
    """Greedy answers are the likeliest tokens, as the server tells; control: a request that leaves sampling to it."""

    def greedy(sampling: dict[str, Any]) -> tuple[list[list[int]], bool]:
        """The ids of each answer, and whether all are the likeliest of their place."""
        extra = {"ignore_eos": False} | chat_options() | sampling
        choices = [ask(client, oracle, chat, extra, temperature=0, logit_bias={}, top_logprobs=2).choices[0] for chat in CHATS]
        entries = [entry for choice in choices for entry in choice.logprobs.content]
        likeliest = all(entry.logprob == max(top.logprob for top in entry.top_logprobs) for entry in entries)
        return [token_ids(choice) for choice in choices], likeliest

    replies = [reply.token_ids for reply in evaluated(url, Path(tiny_checkpoint), oracle, Decoding(max_tokens=48))]
    assert greedy(NEUTRAL_VLLM) == (replies, True)
    left, likeliest = greedy(dict.fromkeys(NEUTRAL_VLLM))
    assert left != replies and not likeliest
