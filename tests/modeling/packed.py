"""Packed micro-batches at random, and who sees whom in them, by the definition alone."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from future_l1_verl.modeling.packing import Packing


@st.composite
def packings(draw: st.DrawFn) -> Packing:
    """Questions of unlike lengths with groups of any size, in any order; answers may be empty."""
    prompts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    more = draw(st.lists(st.integers(0, len(prompts) - 1), max_size=7))
    questions = draw(st.permutations([*range(len(prompts)), *more]))
    answers = draw(st.lists(st.integers(0, 7), min_size=len(questions), max_size=len(questions)))
    return Packing(tuple(prompts), tuple(answers), tuple(questions), padding=draw(st.integers(0, 3)))


def tokens(packing: Packing) -> list[tuple[int, int | None, int]]:
    """Of each packed index: its question, its row (None in a prompt) and its place in prompt plus answer."""
    found: list[tuple[int, int | None, int]] = []
    for question, length in enumerate(packing.prompts):
        found += [(question, None, place) for place in range(length)]
    found += [(-1, None, place) for place in range(packing.padding)]
    for row, (question, length) in enumerate(zip(packing.questions, packing.answers, strict=True)):
        found += [(question, row, packing.prompts[question] + place) for place in range(length)]
    return found


def visible(packing: Packing) -> Tensor:
    """bool ``[T, T]``: which token (row) sees which (column)."""
    found = tokens(packing)
    return torch.tensor(
        [
            [
                asking == asked and place >= other and (answer == its_answer or its_answer is None)
                for asked, its_answer, other in found
            ]
            for asking, answer, place in found
        ]
    )
