"""Texts of a server that speaks the OpenAI API, over real HTTP."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator

import openai
import pytest
from chat_server import Reply, Server, serving
from PIL import Image

from data_prep.curation.backends import Question, Sampling, Text
from data_prep.curation.backends.openai import OpenAIBackend, OpenAISettings
from data_prep.curation.patience import Patience

SAMPLING = Sampling(temperature=0.7, top_p=0.8, max_tokens=33)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def backend(server: Server, **changes: object) -> OpenAIBackend:
    settings = {"patience": Patience(rounds=2, outage=30, pause=0.05), "concurrency": 4} | changes
    return OpenAISettings(server.url, "model", SAMPLING, **settings).start()


def says(text: str | None, prompt: int = 0, generated: int = 0) -> Reply:
    usage = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "model", "choices": [choice], "usage": usage}
    return Reply(json.dumps(body))


def question(text: str, *seeds: int) -> Question:
    image = {"type": "image", "image": Image.new("RGB", (6, 4), (10, 20, 30))}
    return Question([{"role": "user", "content": [image, {"type": "text", "text": text}]}], list(seeds))


def asked_of(server: Server) -> list[dict]:
    """The requests for texts, without those that look whether the server is there."""
    return [request for request in server.requests if "seed" in request]


def test_each_seed_is_a_request_with_frames_and_sampling(server: Server) -> None:
    server.script = lambda prompt, nth: says(
        json.loads(prompt)[1]["text"] if "image" in prompt else "hello", prompt=7, generated=3
    )
    asked = backend(server)
    assert asked.texts([question("a", 5, 6), question("b", 9)]) == [[Text("a", None)] * 2, [Text("b", None)]]
    assert sorted(request["seed"] for request in asked_of(server)) == [5, 6, 9]
    for request in asked_of(server):
        assert (request["model"], request["temperature"], request["top_p"], request["max_tokens"]) == ("model", 0.7, 0.8, 33)
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert (image.size, image.getpixel((0, 0))) == ((6, 4), (10, 20, 30))
    assert (asked.tokens.prompt, asked.tokens.generated) == (21, 9)
    assert server.peak <= 4


@pytest.mark.parametrize("owner", ["vllm", "somebody", None])
def test_nothing_of_sampling_is_left_to_the_server(owner: str | None, server: Server) -> None:
    """vLLM's own fields go to vLLM alone: others refuse fields that they do not know."""
    server.owned_by = owner
    server.script = lambda prompt, nth: says("fine")
    backend(server).texts([question("a", 1)])
    (request,) = asked_of(server)
    known = {"temperature": 0.7, "top_p": 0.8, "max_tokens": 33, "presence_penalty": 0, "frequency_penalty": 0}
    vllm = {"repetition_penalty": 1, "top_k": 0, "min_p": 0} if owner == "vllm" else {}
    assert {key: value for key, value in request.items() if key not in ("model", "messages", "seed")} == known | vllm


def test_a_server_need_not_list_its_models(server: Server) -> None:
    server.listing = Reply("no such path", status=404)
    server.script = lambda prompt, nth: says("fine")
    assert backend(server).texts([question("a", 1)]) == [[Text("fine", None)]]
    (request,) = asked_of(server)
    assert "top_k" not in request and request["presence_penalty"] == 0


def test_a_text_that_fails_every_time_says_why_and_leaves_the_others(server: Server) -> None:
    server.script = lambda prompt, nth: Reply("too long", status=400) if "bad" in prompt else says("fine")
    (good,), (bad,) = backend(server).texts([question("good", 1), question("bad", 1)])
    assert good == Text("fine", None)
    assert bad.text is None
    assert bad.error.startswith("BadRequestError")
    assert sum("bad" in json.dumps(request) for request in asked_of(server)) == 2  # rounds


@pytest.mark.parametrize("body", ["<html>busy</html>", "{", "null"])
def test_a_reply_that_is_no_completion_is_a_failed_text(body: str, server: Server) -> None:
    server.script = lambda prompt, nth: Reply(body) if "image" in prompt else says("hello")
    ((text,),) = backend(server).texts([question("a", 1)])
    assert text.text is None and text.error


@pytest.mark.parametrize(("status", "kind"), [(401, "Authentication"), (403, "PermissionDenied"), (404, "NotFound")])
def test_a_server_that_will_never_answer_is_refused_at_the_start(status: int, kind: str, server: Server) -> None:
    server.script = lambda prompt, nth: Reply("no", status=status)
    with pytest.raises(openai.OpenAIError) as refused:
        backend(server)
    assert type(refused.value).__name__ == f"{kind}Error"


def test_an_outage_of_completions_alone_is_an_outage(server: Server) -> None:
    """A gateway without its backend lists models all the same."""
    asking = backend(server)
    back = time.monotonic() + 2
    server.script = lambda prompt, nth: says("fine") if time.monotonic() > back else Reply("nobody there", status=503)
    assert asking.texts([question("a", 1, 2)]) == [[Text("fine", None)] * 2]


def test_an_outage_is_waited_for_and_fails_nothing(server: Server) -> None:
    def script(prompt: str, nth: int) -> Reply:
        if len(asked_of(server)) == 5:
            server.away = True
            threading.Timer(2, setattr, (server, "away", False)).start()
        return says("fine")

    server.script = script
    assert backend(server).texts([question(str(number), 1, 2) for number in range(8)]) == [[Text("fine", None)] * 2] * 8
    assert len(asked_of(server)) > 16
