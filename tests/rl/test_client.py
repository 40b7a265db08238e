"""What the client sends where, and what it makes of the parts of answers that weight updates cut."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.workers.rollout import llm_server
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from future_l1_verl.decoding.vllm.wire import to_array
from future_l1_verl.rl import shared_prompt
from future_l1_verl.rl.client import LatentServerClient

LATENT, WIDTH = 7, 2
ANSWER = [1, 2, LATENT, LATENT, 3, LATENT, 4, 0]
VECTORS = {i: torch.full((1, WIDTH), float(i)) for i, token in enumerate(ANSWER) if token == LATENT}


class Server:
    """Gives ``ANSWER``, cut after each of ``cuts`` tokens in all; the version of its weights goes up with each cut."""

    def __init__(self, cuts: list[int]) -> None:
        self.ends, self.version, self.asked = [*cuts, len(ANSWER)], 10, []
        self.generate = SimpleNamespace(remote=self._generate)

    async def _generate(self, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        self.asked.append((list(prompt_ids), dict(sampling_params)))
        first, end = len(prompt_ids) - 2, self.ends[self.version - 10]
        vectors = [VECTORS[i] for i in range(first, end) if i in VECTORS]
        fields = {"global_steps": self.version, "latents": to_array(torch.cat([torch.zeros(0, WIDTH), *vectors]))}
        self.version += 1
        return TokenOutput(
            token_ids=ANSWER[first:end],
            log_probs=[-float(i) for i in range(first, end)],
            stop_reason="completed" if end == len(ANSWER) else "aborted",
            num_preempted=0,
            extra_fields=fields,
        )


CONFIG = OmegaConf.create({"actor_rollout_ref": {"rollout": {"name": "vllm", "response_length": 20}}})


def ask(server: Server) -> TokenOutput:
    client = LatentServerClient(CONFIG)

    async def acquire(*_: Any, **__: Any) -> tuple[str, Server]:
        return "a", server

    client._acquire_server, client._release_server = acquire, lambda *_, **__: None

    async def at_once(_: float) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm_server.asyncio, "sleep", at_once)
        output = asyncio.run(client.generate(request_id="r", prompt_ids=[50, 51], sampling_params={"logprobs": True}))
    assert not client.latents and not client.segments
    return output


@given(st.lists(st.integers(0, len(ANSWER) - 1), max_size=4).map(sorted))
def test_parts_make_the_answer(cuts: list[int]) -> None:
    server = Server(cuts)
    output = ask(server)
    assert output.token_ids == ANSWER
    assert output.log_probs == [-float(i) for i in range(len(ANSWER))]
    assert torch.equal(output.extra_fields["latents"], torch.cat(list(VECTORS.values())))
    edges = [0, *cuts, len(ANSWER)]
    parts = [(10 + i, end - start) for i, (start, end) in enumerate(pairwise(edges)) if end > start]
    assert output.extra_fields["segments"] == parts
    for start, (prompt, params) in zip(edges, server.asked, strict=False):
        assert prompt == [50, 51, *ANSWER[:start]]
        assert params["max_tokens"] == 20 - start
        known = [VECTORS[i] for i in VECTORS if i < start]
        if start == 0:
            assert "prompt_latents" not in params
        else:
            assert torch.equal(params["prompt_latents"], torch.cat([torch.zeros(0, WIDTH), *known]))


class Balancer:
    """verl's own, called as an actor is."""

    def __init__(self, *servers: str) -> None:
        self.balancer = GlobalRequestLoadBalancer(dict.fromkeys(servers))

    def __getattr__(self, name: str) -> SimpleNamespace:
        async def remote(*args: Any, **kwargs: Any) -> Any:
            return getattr(self.balancer, name)(*args, **kwargs)

        return SimpleNamespace(remote=remote)


def placed(client: llm_server.LLMServerClient) -> list[list[str]]:
    """On which replica the eight answers to each of six prompts are, all at once."""

    async def prompt(uid: str) -> list[str]:
        shared_prompt.begin(uid)
        answers = [asyncio.create_task(client._acquire_server(f"{uid} {i}")) for i in range(8)]
        return [server for server, _ in await asyncio.gather(*answers)]

    async def prompts() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.create_task(prompt(uid)) for uid in "uvwxyz"))

    return asyncio.run(prompts())


def test_answers_to_a_prompt_are_on_one_replica_and_prompts_on_all() -> None:
    ours = placed(LatentServerClient(CONFIG, Balancer("a", "b", "c")))
    assert all(len(set(replicas)) == 1 for replicas in ours)
    assert sorted(replicas[0] for replicas in ours) == ["a", "a", "b", "b", "c", "c"]
    # The control, verl's client: each prompt is read on every replica.
    assert all(len(set(replicas)) == 3 for replicas in placed(llm_server.LLMServerClient(CONFIG, Balancer("a", "b", "c"))))
