"""The oracle itself, on the tiny model."""

from __future__ import annotations

import math

import pytest
import torch
from decoding_harness import Oracle, assert_well_formed, span_lengths

from future_l1_verl.decoding import hf
from future_l1_verl.latents.spans import Role
from future_l1_verl.latents.tokens import LatentSettings


def sampled(oracle: Oracle, budget: int, minimum: int = 1, prompt: int = 3, seed: int = 0) -> hf.Response:
    settings = LatentSettings(oracle.settings.tokens, budget)
    with oracle.biased(oracle.bias):
        return hf.generate(
            oracle.model,
            oracle.prompts()[prompt].inputs,
            settings,
            max_new_tokens=24,
            temperature=1.0,
            generator=torch.Generator().manual_seed(seed),
            min_latents=minimum,
            eos_token_id=None,
        )


@pytest.mark.parametrize(("budget", "minimum"), [(1, 1), (3, 1), (3, 3)])
def test_generated_spans_are_well_formed_and_within_the_budget(oracle: Oracle, budget: int, minimum: int) -> None:
    response = sampled(oracle, budget, minimum)
    settings = LatentSettings(oracle.settings.tokens, budget)
    assert_well_formed(response.token_ids, response.layout.roles, settings)
    lengths = span_lengths(response.token_ids.tolist(), settings)
    assert lengths and min(lengths) >= minimum and max(lengths) <= budget


def test_a_deterministic_latent_is_the_hidden_state_at_its_feeding_position(oracle: Oracle) -> None:
    """docs/differences.md, row 2."""
    response = sampled(oracle, 3)
    assert len(response.latents) > 3
    assert (response.latents - response.hidden).abs().max() < 1e-5


def test_latents_change_what_follows_them_and_nothing_before(oracle: Oracle) -> None:
    response = sampled(oracle, 3)
    changed = response.latents.clone()
    changed[1] += 1.0
    inputs, settings = oracle.prompts()[3].inputs, LatentSettings(oracle.settings.tokens, 3)
    before = hf.score(oracle.model, inputs, response.token_ids, response.latents, settings)
    after = hf.score(oracle.model, inputs, response.token_ids, changed, settings)
    slot = response.layout.slots.nonzero()[1, 0]
    difference = (before.logprobs - after.logprobs).abs()
    assert difference[: slot + 1].max() == 0
    assert difference[slot + 1 :].max() > 1e-3


def test_log_probs_by_role_against_the_definition(oracle: Oracle) -> None:
    response = sampled(oracle, 3)
    prompt, settings = oracle.prompts()[3].inputs, LatentSettings(oracle.settings.tokens, 3)
    scored = hf.score(oracle.model, prompt, response.token_ids, response.latents, settings, temperature=0.7)
    tokens, roles = settings.tokens, response.layout.roles.tolist()
    assert {Role.TEXT, Role.LATENT, Role.LATENT_FORCED} <= set(roles)
    states = hf._hidden_states(oracle.model, prompt, response.token_ids, response.latents, response.layout.slots)
    with torch.no_grad():
        p = (oracle.model.lm_head(states) / 0.7).double().softmax(-1)[prompt["input_ids"].shape[1] - 1 :]
    for t, (role, token) in enumerate(zip(roles, response.token_ids.tolist(), strict=True)):
        expected = {
            Role.TEXT: p[t, token] / (1 - p[t, tokens.latent]),
            Role.STOP: p[t, tokens.end],
            Role.LATENT: 1 - p[t, tokens.end],
        }.get(Role(role), torch.tensor(1.0))
        assert scored.logprobs[t].item() == pytest.approx(math.log(expected), abs=1e-5)


def test_greedy_decoding_ends_at_eos(oracle: Oracle) -> None:
    eos = oracle.vocabulary["<|im_end|>"]
    with oracle.biased({eos: 100.0}):
        response = hf.generate(oracle.model, oracle.prompts()[0].inputs, oracle.settings, max_new_tokens=5, eos_token_id=eos)
    assert response.token_ids.tolist() == [eos]
    assert response.latents.shape == (0, oracle.model.config.text_config.hidden_size)


def test_one_latent_per_slot_or_an_error(oracle: Oracle) -> None:
    tokens = oracle.settings.tokens
    ids = torch.tensor([tokens.start, tokens.latent, tokens.end])
    hidden = oracle.model.config.text_config.hidden_size
    with pytest.raises(ValueError, match="1 slots but 2 latents"):
        hf.score(oracle.model, oracle.prompts()[0].inputs, ids, torch.zeros(2, hidden), oracle.settings)
