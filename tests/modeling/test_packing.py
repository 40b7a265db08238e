"""The layout of packed questions against its definition, token by token."""

import pytest
import torch
from hypothesis import given
from packed import packings, tokens, visible

from future_l1_verl.modeling.packing import Packing

#                 question 0, question 1  three answers to the first, one to the second
TWO = Packing(prompts=(3, 2), answers=(2, 1, 0, 2), questions=(0, 1, 0, 0))
ROWS = [torch.tensor(row) for row in ([1, 2, 3, 10, 11], [4, 5, 12], [1, 2, 3], [1, 2, 3, 13, 14])]


def test_prompts_stand_once_and_before_the_answers() -> None:
    assert TWO.pack(ROWS).tolist() == [1, 2, 3, 4, 5, 10, 11, 12, 13, 14]
    assert (len(TWO), TWO.asked, TWO.scored) == (10, 5, 5)


def test_the_first_token_of_an_answer_is_predicted_at_the_end_of_its_prompt() -> None:
    # 10 at the 3 of its prompt, 11 at 10; 12 at 5; 13 at the same 3, 14 at 13.
    assert TWO.states.tolist() == [2, 5, 4, 2, 8]


def test_entries_go_back_to_the_rows() -> None:
    entries = TWO.entries(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    # Entry p is about token p + 1: those of answers stand one before their tokens.
    expected = [[0, 0, 0.1, 0.2, 0], [0, 0.3, 0], [0, 0, 0], [0, 0, 0.4, 0.5, 0]]
    torch.testing.assert_close(entries, torch.tensor([value for row in expected for value in row]))


def test_padding_stands_between_and_has_the_filling_value() -> None:
    padded = Packing(TWO.prompts, TWO.answers, TWO.questions, padding=2)
    assert padded.pack(ROWS, fill=9).tolist() == [1, 2, 3, 4, 5, 9, 9, 10, 11, 12, 13, 14]
    assert padded.states.tolist() == [2, 7, 4, 2, 10]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"question 1 .* empty prompt"):
        Packing((3, 0), (1,), (0,))


@given(packings())
def test_a_state_is_that_of_the_token_before_in_the_row(packing: Packing) -> None:
    found = tokens(packing)
    for scored, state in zip(found[packing.asked :], packing.states.tolist(), strict=True):
        question, row, place = scored
        assert found[state] == (question, None if place == packing.prompts[question] else row, place - 1)


@given(packings())
def test_rows_come_back_as_they_were_packed(packing: Packing) -> None:
    lengths = [packing.prompts[question] + answer for question, answer in zip(packing.questions, packing.answers, strict=True)]
    rows = [
        torch.tensor(
            [place + (100 * (row + 1) if place >= packing.prompts[packing.questions[row]] else 0) for place in range(length)]
        )
        for row, length in enumerate(lengths)
    ]
    packed = packing.pack(rows)
    assert len(packed) == len(packing)
    # Each answer's tokens, put at the entries that are about them.
    entries = packing.entries(packed[packing.asked :]).split(lengths)
    for row, question, entry in zip(rows, packing.questions, entries, strict=True):
        prompt = packing.prompts[question]
        assert entry[prompt - 1 : -1].tolist() == row[prompt:].tolist()
        assert entry[: prompt - 1].tolist() == [0] * (prompt - 1) and entry[-1] == 0


@given(packings())
def test_segments_are_what_each_token_sees(packing: Packing) -> None:
    """The pieces of the two calls of attention, spelt out key by key."""
    found = torch.zeros(len(packing), len(packing), dtype=torch.bool)
    calls = [(packing.prompt_segments, torch.arange(packing.asked), 0)]
    if packing.scored:
        calls.append((packing.answer_segments, packing.answer_segments.taken, packing.asked))
    for segments, taken, query in calls:
        key = 0
        for queries, keys in zip(segments.queries, segments.keys, strict=True):
            for each in range(queries):
                found[query + each, taken[key : key + keys - queries + 1 + each]] = True
            query, key = query + queries, key + keys
    assert torch.equal(found, visible(packing))
