"""How rows are divided: nothing lost, nothing over budget, questions together."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.utils.seqlen_balancing import calculate_workload

from future_l1_verl.training.balancing import cost, first_of_parts, over_ranks, packed_tokens, within


@st.composite
def batches(draw: st.DrawFn, multiple: int = 1) -> tuple[list[str], list[int], list[int]]:
    """Questions in any order with groups of any size, and the lengths of each row's prompt and answer."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=8))
    rows = [question for question, size in enumerate(sizes) for _ in range(size)]
    rows += [len(sizes)] * (-len(rows) % multiple)  # rows that fill up are a question of their own
    rows = draw(st.permutations(rows))
    prompts = draw(st.lists(st.integers(1, 100), min_size=len(sizes) + 1, max_size=len(sizes) + 1))
    answers = draw(st.lists(st.integers(0, 60), min_size=len(rows), max_size=len(rows)))
    return [f"q{question}" for question in rows], [prompts[question] for question in rows], answers


def test_a_prompt_counts_once() -> None:
    questions, prompts, answers = ["a", "b", "a"], [10, 7, 10], [3, 4, 5]
    assert packed_tokens([0, 1, 2], questions, prompts, answers) == 10 + 3 + 5 + 7 + 4
    # Pairs twice over: 10², 2·10·3 + 3², 2·10·5 + 5²; 7², 2·7·4 + 4².
    assert cost([0, 1, 2], questions, prompts, answers) == 24576 * 29 + 100 + 69 + 125 + 49 + 72


@given(st.lists(st.integers(2, 5000), min_size=1, max_size=5))
def test_single_answers_cost_what_verl_says(lengths: list[int]) -> None:
    names, prompts = [str(i) for i in range(len(lengths))], [length // 2 for length in lengths]
    answers = [length - prompt for length, prompt in zip(lengths, prompts, strict=True)]
    expected = calculate_workload(torch.tensor(lengths)).tolist()
    assert [cost([row], names, prompts, answers) for row in range(len(lengths))] == expected


@given(st.sampled_from([1, 2, 3, 4]).flatmap(lambda ranks: st.tuples(st.just(ranks), batches(ranks))))
def test_ranks_get_equal_numbers_of_rows_and_all_of_them(drawn: tuple[int, tuple]) -> None:
    ranks, (questions, prompts, answers) = drawn
    parts = over_ranks(questions, prompts, answers, ranks)
    assert sorted(row for part in parts for row in part) == list(range(len(questions)))
    assert {len(part) for part in parts} == {len(questions) // ranks}


def test_equal_groups_stay_whole_and_costs_are_alike() -> None:
    """64 questions of 8 answers over 8 ranks, prompts of 1,000 to 4,000 tokens."""
    questions = [f"q{question}" for question in range(64) for _ in range(8)]
    prompts = [1000 + 3000 * question // 63 for question in range(64) for _ in range(8)]
    answers = [100 + 17 * row % 200 for row in range(512)]
    parts = over_ranks(questions, prompts, answers, 8)
    assert all(set(Counter(questions[row] for row in part).values()) == {8} for part in parts)
    costs = [cost(part, questions, prompts, answers) for part in parts]
    assert max(costs) < 1.02 * min(costs)


def test_rows_that_cannot_be_divided_equally_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows cannot be divided among 2 ranks"):
        over_ranks(["a"] * 3, [1] * 3, [1] * 3, 2)


@given(batches(), st.integers(0, 400), st.integers(1, 12))
def test_micro_batches_stay_within_their_budget(drawn: tuple, slack: int, at_least: int) -> None:
    questions, prompts, answers = drawn
    budget = max(prompt + answer for prompt, answer in zip(prompts, answers, strict=True)) + slack
    at_least = min(at_least, len(questions))
    parts = within(budget, questions, prompts, answers, at_least)
    assert sorted(row for part in parts for row in part) == list(range(len(questions)))
    assert len(parts) >= at_least and all(parts)
    assert max(packed_tokens(part, questions, prompts, answers) for part in parts) <= budget


def test_a_question_that_exceeds_the_budget_is_divided_and_others_are_not() -> None:
    questions, prompts, answers = ["a"] * 4 + ["b"] * 2, [50] * 4 + [10] * 2, [30] * 4 + [5] * 2
    # a: 50 + 4 * 30 = 170 tokens; two answers with their prompt are 110, the whole of b is 20.
    parts = within(130, questions, prompts, answers)
    assert [sum(questions[row] == name for row in part) for part in parts for name in "a"] == [2, 2]
    assert sorted(sum(questions[row] == "b" for row in part) for part in parts) == [0, 2]
    assert within(190, questions, prompts, answers) == [[0, 1, 2, 3, 4, 5]]


def test_a_row_longer_than_a_micro_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0 has 60 tokens, a micro-batch at most 59"):
        within(59, ["a", "b"], [50, 10], [10, 5])


def test_more_micro_batches_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows cannot be divided into 3 micro-batches"):
        within(100, ["a", "a"], [5, 5], [5, 5], at_least=3)


def test_pixels_are_needed_where_a_part_begins() -> None:
    questions = ["a", "a", "a", "b", "b", "c"]
    # In parts of three: a | b, c. In parts of two: a | a, b | b, c.
    assert first_of_parts(questions, [3]) == [0, 3, 5]
    assert first_of_parts(questions, [3, 2]) == [0, 2, 3, 4, 5]
