"""Decoding with plain transformers, for comparison with the engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from future_l1_verl.latents.tokens import LatentSettings


@torch.no_grad()
def cached(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], latent: LatentSettings, limit: int, end: int | None
) -> list[list[int]]:
    """Greedy answers to prompts of one length, with a key-value cache: a step of the model per token for all of them.

    Ends after ``limit`` tokens, or as soon as every answer has its ``end``.
    """
    tokens, embed, answers = latent.tokens, model.get_input_embeddings(), []
    cache, state = DynamicCache(), torch.full((len(inputs["input_ids"]),), -1, device=model.device)
    ended = torch.zeros_like(state, dtype=torch.bool)
    output = model.model(**inputs, past_key_values=cache, use_cache=True)
    while len(answers) < limit and not ended.all():
        hidden = output.last_hidden_state[:, -1:]
        logits, in_span = model.lm_head(hidden)[:, 0], state >= 0
        logits[:, tokens.latent].masked_fill_(~in_span, float("-inf"))
        token = logits.argmax(-1)
        stop = (state == latent.max_latents) | (state > 0) & (token == tokens.end)
        slot = in_span & ~stop
        token = torch.where(stop, tokens.end, torch.where(slot, tokens.latent, token))
        state = torch.where(slot, state + 1, torch.where(token == tokens.start, 0, -1))
        answers.append(token)
        ended |= token == (-1 if end is None else end)
        step = torch.where(slot[:, None, None], hidden, embed(token)[:, None])
        output = model.model(inputs_embeds=step, past_key_values=cache, use_cache=True)
    return [row[: row.index(end) + 1] if end in row else row for row in torch.stack(answers, dim=1).tolist()]
