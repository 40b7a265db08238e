"""Decodes latent spans with a plain transformers model, one response at a time: the reference that vLLM is tested against.

Every step runs the model over the whole sequence, without a key-value cache; the model is not changed, a hook on its input
embedding injects the latents. The hidden states are those after the final norm, which the output head reads.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from future_l1_verl.latents.spans import Layout, Role, feeding_positions, response_layout
from future_l1_verl.latents.tokens import LatentSettings


@dataclass(frozen=True)
class Response:
    """A response of L tokens and S slots, on the host.

    ``token_ids`` is int64 ``[L]``. ``latents`` ``[S, H]`` are the injected vectors and ``hidden`` ``[S, H]`` the model's
    hidden states at the feeding positions of the slots, both in the model's dtype; the two are equal if latents are
    deterministic. ``logprobs`` is float32 ``[L]`` by role: text has log p(token) with ``<|latent|>`` impossible, a stop
    log p(end), a free slot log(1 - p(end)), a forced token 0.
    """

    token_ids: Tensor
    layout: Layout
    latents: Tensor
    hidden: Tensor
    logprobs: Tensor


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    settings: LatentSettings,
    *,
    max_new_tokens: int,
    eos_token_id: int | None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    min_latents: int = 1,
) -> Response:
    """Decodes one response to ``inputs``, a processor's output for one prompt (``input_ids`` is ``[1, P]``).

    Greedy at temperature 0, and sampled from the whole distribution above it; the log-probs are those at the temperature,
    or at 1 if it is 0. Ends with ``eos_token_id`` (never, if None) or after ``max_new_tokens``, possibly inside a span.

    Raises ValueError unless 1 <= min_latents <= settings.max_latents.
    """
    tokens = settings.tokens
    ids = torch.empty(0, dtype=torch.int64)
    latents = torch.empty(0, _hidden_size(model), dtype=model.dtype)
    while len(ids) < max_new_tokens and (len(ids) == 0 or ids[-1] != eos_token_id):
        hidden = _hidden_states(model, inputs, ids, latents, ids == tokens.latent)[-1]
        # An end token would be a stop if the next index lies in a span, and plain text if it does not.
        probe = response_layout(torch.cat([ids, torch.tensor([tokens.end])]), tokens, settings.max_latents, min_latents)
        in_span, before = bool(probe.roles[-1] != Role.TEXT), int(probe.count[-1])
        logits = _logits(model, hidden)
        if not in_span:
            logits[tokens.latent] = float("-inf")
        token = _choose(logits, temperature, generator)
        if in_span and before == settings.max_latents:
            token = tokens.end
        elif in_span and (before < min_latents or token != tokens.end):
            token = tokens.latent
            latents = torch.cat([latents, hidden[None].cpu()])
        ids = torch.cat([ids, torch.tensor([token])])
    return score(model, inputs, ids, latents, settings, temperature=temperature or 1.0, min_latents=min_latents)


@torch.no_grad()
def score(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    response_ids: Tensor,
    latents: Tensor,
    settings: LatentSettings,
    *,
    temperature: float = 1.0,
    min_latents: int = 1,
) -> Response:
    """Scores a given response, teacher-forced. ``response_ids`` is int64 ``[L]``, ``latents`` ``[S, H]``.

    Raises ValueError if there is not one latent per slot.
    """
    tokens = settings.tokens
    layout = response_layout(response_ids, tokens, settings.max_latents, min_latents)
    states = _hidden_states(model, inputs, response_ids, latents, layout.slots)
    prompt = inputs["input_ids"].shape[1]
    is_slot = torch.cat([torch.zeros(prompt, dtype=torch.bool), layout.slots])
    logits = _logits(model, states[prompt - 1 : -1]) / temperature
    return Response(
        response_ids,
        layout,
        latents,
        states[feeding_positions(is_slot).to(states.device)].cpu(),
        _logprobs_by_role(logits.cpu(), response_ids, layout, settings),
    )


def _logprobs_by_role(logits: Tensor, response_ids: Tensor, layout: Layout, settings: LatentSettings) -> Tensor:
    """Returns log-probs by role, float32 ``[L]``, from the logits ``[L, V]`` that each index was sampled from."""
    tokens = settings.tokens
    is_text = (layout.roles == Role.TEXT)[:, None]
    is_latent = (torch.arange(logits.shape[-1]) == tokens.latent)[None]
    full = logits.masked_fill(is_text & is_latent, float("-inf")).log_softmax(-1)
    token = full.gather(-1, response_ids[:, None])[:, 0]
    others = full.clone()
    others[:, tokens.end] = float("-inf")
    result = torch.where(layout.slots, others.logsumexp(-1), token)
    return result.masked_fill(layout.forced, 0.0)


def _hidden_states(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], response_ids: Tensor, latents: Tensor, slots: Tensor
) -> Tensor:
    """Returns the last hidden states of prompt and response, ``[P + L, H]``, with latents injected at the slots ``[L]``."""
    if int(slots.sum()) != len(latents):
        raise ValueError(f"{int(slots.sum())} slots but {len(latents)} latents")
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    prompt, response = inputs["input_ids"], response_ids.to(model.device)[None]
    inputs["input_ids"] = torch.cat([prompt, response], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(response)], dim=1)
    rows = prompt.shape[1] + slots.nonzero()[:, 0]
    with _injected(model, rows.to(model.device), latents.to(model.device)):
        return model.model(**inputs, use_cache=False).last_hidden_state[0]


@contextmanager
def _injected(model: PreTrainedModel, rows: Tensor, latents: Tensor) -> Iterator[None]:
    """Replaces, inside the block, the embeddings ``[1, T, H]`` at the indices ``rows`` by ``latents``."""

    def overwrite(_module: torch.nn.Module, _args: tuple[Tensor, ...], embeddings: Tensor) -> Tensor:
        return embeddings.index_copy(1, rows, latents.to(embeddings.dtype)[None])

    handle = model.get_input_embeddings().register_forward_hook(overwrite)
    try:
        yield
    finally:
        handle.remove()


def _logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    return model.get_output_embeddings()(hidden).to(torch.float32)


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def _hidden_size(model: PreTrainedModel) -> int:
    return model.get_input_embeddings().get_parameter("weight").shape[1]
