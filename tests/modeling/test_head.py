"""The chunked output head against plain log-softmax: values, gradients, and how much memory logits take."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.modeling.head import Head

TOKENS = LatentTokens(start=4, latent=5, end=6)
BANNED, VOCABULARY, HIDDEN = (7, 8), 20, 6
SAID = torch.tensor([3, 4, 5, 5, 6, 11, 4, 5, 6])
BEFORE = torch.tensor([9, 3, 4, 5, 5, 6, 11, 4, 5])
SLOTS = torch.tensor([2, 3, 7])
NONE = torch.zeros(0, dtype=torch.int64)


def linear(dtype: torch.dtype = torch.float64, vocabulary: int = VOCABULARY, hidden: int = HIDDEN) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(hidden, vocabulary, bias=False, dtype=dtype)


def states(rows: int = len(SAID), dtype: torch.dtype = torch.float64, hidden: int = HIDDEN) -> Tensor:
    return torch.randn(rows, hidden, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()


def plainly(weights: nn.Linear, rows: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Decision by decision: softmax over what can be sampled."""
    log_probs, entropies = [], []
    for row, before, said in zip(rows, BEFORE.tolist(), SAID.tolist(), strict=True):
        impossible = {*BANNED} | (set() if before in (TOKENS.start, TOKENS.latent) else {TOKENS.latent})
        possible = [token for token in range(VOCABULARY) if token not in impossible]
        probabilities = (weights(row)[possible] / temperature).softmax(-1)
        named = dict(zip(possible, probabilities, strict=True))
        log_probs.append(torch.log(1 - named[TOKENS.end] if said == TOKENS.latent else named[said]))
        entropies.append(-(probabilities * probabilities.log()).sum())
    return torch.stack(log_probs), torch.stack(entropies)


@pytest.mark.parametrize("chunk", [VOCABULARY, 4 * VOCABULARY, 1000])
@given(temperature=st.sampled_from([0.5, 0.9, 1.0]))
def test_decisions_and_entropies_are_those_of_what_can_be_sampled(chunk: int, temperature: float) -> None:
    weights = linear()
    ours, theirs = states(), states()
    found = Head(weights.weight, TOKENS, BANNED, chunk)(ours, BEFORE, SAID, SLOTS, temperature, entropy=True)
    expected = plainly(weights, theirs, temperature)
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, its)
        gradients = [
            torch.autograd.grad(x.square().sum(), (rows, weights.weight), retain_graph=True)
            for x, rows in ((mine, ours), (its, theirs))
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)


def test_going_on_keeps_its_gradient_where_p_end_is_close_to_1() -> None:
    weights = linear()
    with torch.no_grad():
        weights.weight.zero_()[TOKENS.end] = 10.0
    rows = torch.full((1, HIDDEN), 0.8, dtype=torch.float64, requires_grad=True)  # a logit of 48 against zeros
    log_probs, _ = Head(weights.weight, TOKENS, BANNED)(
        rows, torch.tensor([TOKENS.latent]), torch.tensor([TOKENS.latent]), torch.tensor([0]), 1.0, False
    )
    # 17 others of weight 1: log(17 / (17 + e^48)), which 1 - p(end) rounds to 0.
    assert float(log_probs) == pytest.approx(torch.tensor(17.0).log().item() - 48)
    log_probs.sum().backward()
    assert rows.grad.sum() == pytest.approx(-HIDDEN * 10, rel=1e-6)


def test_temperature_and_sums_are_in_fp32_whatever_the_logits_are() -> None:
    """0.9 is 0.8984 in bf16: dividing bf16 logits by it would be off by 0.2 %."""
    weights, rows = linear(torch.bfloat16), states(dtype=torch.bfloat16)
    found, _ = Head(weights.weight, TOKENS, ())(rows, SAID, SAID.clamp(max=3), NONE, 0.9, entropy=False)
    logits = weights(rows).double() / 0.9
    logits[(TOKENS.start != SAID) & (TOKENS.latent != SAID), TOKENS.latent] = float("-inf")
    expected = logits.log_softmax(-1).gather(-1, SAID.clamp(max=3)[:, None])[:, 0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)


def peak(head: Head, rows: Tensor, before: Tensor, said: Tensor, entropy: bool) -> int:
    """Bytes that torch has allocated at most beyond those that live before, in forward and backward."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        log_probs, entropies = head(rows, before, said, NONE, 0.9, entropy)
        (log_probs.sum() if entropies is None else log_probs.sum() + entropies.sum()).backward()
    alive = most = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda each: each.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


@pytest.mark.parametrize(("entropy", "most"), [(False, 2.5), (True, 3.5)])
def test_logits_of_a_chunk_alone_are_alive(entropy: bool, most: float) -> None:
    """In units of the fp32 logits of a chunk, which is a 16th of all; and of all of them, with no chunks, as a control."""
    rows, vocabulary, hidden, parts = 512, 4096, 8, 16
    weights = linear(torch.float32, vocabulary, hidden)
    inputs = states(rows, torch.float32, hidden)
    said = torch.arange(rows) % 3 + 9
    size = rows * vocabulary * 4
    for chunk in (size // 4, size // 4 // parts):
        found = peak(Head(weights.weight, TOKENS, BANNED, chunk), inputs, said, said, entropy) / (4 * chunk)
        assert 1.9 < found < most
