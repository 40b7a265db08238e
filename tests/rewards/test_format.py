"""Replies as token ids of a toy vocabulary: one id per word, so that shapes are written as in paper section 1."""

import pytest
import torch

from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.rewards.format import well_formed

WORDS = ["S", "Z", "E", "<reason>", "</reason>", "<answer>", "</answer>", "ball", "wall", " "]
ID = {word: i for i, word in enumerate(WORDS)}
TOKENS = LatentTokens(ID["S"], ID["Z"], ID["E"])


def formed(reply: str, max_latents: int = 2, max_spans: int = 3) -> bool:
    ids = torch.tensor([ID[word] for word in reply.split()], dtype=torch.long)
    return well_formed(ids, TOKENS, max_latents, lambda tokens: "".join(WORDS[t] for t in tokens), max_spans)


SPAN, REASON, ANSWER = "S Z E", "<reason> ball </reason>", "<answer> wall </answer>"


@pytest.mark.parametrize(
    "reply",
    [
        f"{SPAN} {REASON} {ANSWER}",
        f"{REASON} {SPAN} {REASON} {ANSWER}",
        f"{SPAN} {REASON} S Z Z E {REASON} {ANSWER}",
    ],
)
def test_shapes_of_the_paper_pass(reply: str) -> None:
    assert formed(reply)


@pytest.mark.parametrize(
    "reply",
    [
        f"{REASON} {ANSWER}",  # no span
        f"S E {REASON} {ANSWER}",  # empty span
        f"{SPAN} <reason> </reason> {ANSWER}",  # empty reason
        f"{SPAN} {REASON} <answer> </answer>",  # empty answer
        f"{SPAN} {ANSWER}",  # span without its reason
        f"{SPAN} {SPAN} {REASON} {ANSWER}",
        f"{REASON} {REASON} {SPAN} {REASON} {ANSWER}",
        f"{SPAN} {REASON} {ANSWER} {ANSWER}",
        f"{SPAN} {REASON} {ANSWER} ball",
        f"ball {SPAN} {REASON} {ANSWER}",
        f"{ANSWER} {SPAN} {REASON}",
        f"{SPAN} <reason> ball {SPAN} </reason> {ANSWER}",  # span inside a reason
        f"{SPAN} {REASON} <answer> wall",  # cut off
        "S Z",  # cut off inside a span
        f"S Z Z Z E {REASON} {ANSWER}",  # over the budget
        f"{SPAN} E {REASON} {ANSWER}",  # an end token too many
        f"{SPAN} <reason> E </reason> {ANSWER}",
        " ".join([f"{SPAN} {REASON}"] * 4) + f" {ANSWER}",  # more spans than allowed
        "",
    ],
)
def test_everything_else_fails(reply: str) -> None:
    assert not formed(reply)
