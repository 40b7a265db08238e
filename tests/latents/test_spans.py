"""The role table of docs/concepts/spans.md, against a decoder's state machine written out step by step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.spans import ROLE_LETTERS, Role, feeding_positions, response_layout, role_letters
from future_l1_verl.latents.tokens import LatentTokens

S, L, E = 14, 15, 16
TOKENS = LatentTokens(S, L, E)
WORD = 7

any_ids = st.lists(st.sampled_from([S, L, E, WORD, 8]), max_size=40)


def roles_by_hand(ids: list[int], budget: int, forced: int) -> list[Role]:
    """One token at a time: ``count`` latents so far in the span we are in, None outside."""
    roles, count = [], None
    for token in ids:
        if count is not None and token == L and count < budget:
            roles.append(Role.LATENT_FORCED if count < forced else Role.LATENT)
            count += 1
        elif count is not None and token == E:
            roles.append(Role.STOP_FORCED if count == budget else Role.STOP)
            count = None
        else:
            roles.append(Role.TEXT)
            count = 0 if token == S else None
    return roles


@given(any_ids, st.integers(0, 5), st.data())
def test_every_index_has_the_role_of_the_table(ids: list[int], budget: int, data: st.DataObject) -> None:
    """docs/differences.md, row 3."""
    forced = data.draw(st.integers(min(1, budget), budget))
    layout = response_layout(torch.tensor(ids, dtype=torch.long), TOKENS, budget, forced)
    assert layout.roles.tolist() == roles_by_hand(ids, budget, forced)


@given(st.lists(any_ids, min_size=1, max_size=4))
def test_a_padded_batch_is_its_rows(rows: list[list[int]]) -> None:
    width = max(map(len, rows))
    padded = torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.long).view(len(rows), width)
    batch = response_layout(padded, TOKENS, 3)
    for i, row in enumerate(rows):
        single = response_layout(torch.tensor(row, dtype=torch.long), TOKENS, 3)
        assert batch.roles[i, : len(row)].tolist() == single.roles.tolist()


def test_a_response_with_a_free_stop_a_budget_end_and_a_cut_off_span() -> None:
    #       0     1  2  3  4  5     6  7  8  9  10 11    12 13
    ids = [WORD, S, L, L, E, WORD, S, L, L, L, L, E, WORD, S, L]
    layout = response_layout(torch.tensor(ids), TOKENS, 4)
    T, F, Z, stop, end = Role.TEXT, Role.LATENT_FORCED, Role.LATENT, Role.STOP, Role.STOP_FORCED
    assert layout.roles.tolist() == [T, T, F, Z, stop, T, T, F, Z, Z, Z, end, T, T, F]
    assert layout.spans.tolist() == [[2, 4], [7, 11], [14, 15]]
    assert layout.forced.nonzero().flatten().tolist() == [2, 7, 11, 14]
    assert role_letters(layout.roles) == "ttflsttflllettf"
    assert len(ROLE_LETTERS) == len(Role)


def test_a_fixed_budget_leaves_no_decision() -> None:
    layout = response_layout(torch.tensor([S, L, L, L, E]), TOKENS, 3, min_latents=3)
    assert layout.forced.tolist() == [False, True, True, True, True]


@given(any_ids)
def test_spans_hold_exactly_the_slots_in_order(ids: list[int]) -> None:
    layout = response_layout(torch.tensor(ids, dtype=torch.long), TOKENS, 4)
    in_spans = [i for first, after in layout.spans.tolist() for i in range(first, after)]
    assert in_spans == layout.slots.nonzero().flatten().tolist()
    assert all(ids[first - 1] == S for first, _ in layout.spans.tolist())


@given(any_ids)
def test_a_feeding_position_comes_right_before_its_slot(ids: list[int]) -> None:
    """docs/differences.md, row 2."""
    slots = response_layout(torch.tensor(ids, dtype=torch.long), TOKENS, 4).slots
    assert feeding_positions(slots).nonzero().flatten().tolist() == [i - 1 for i in slots.nonzero().flatten().tolist()]


@pytest.mark.parametrize(("most", "least"), [(0, 1), (4, 0), (2, 3)])
def test_impossible_budgets_are_refused(most: int, least: int) -> None:
    with pytest.raises(ValueError, match="min_latents"):
        response_layout(torch.tensor([1]), TOKENS, most, least)
