"""Options and truths as data sets write them: what is understood, and what is refused with its reason."""

from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from future_l1_verl.rewards import options
from future_l1_verl.rewards.answer import truth_text
from future_l1_verl.rewards.options import LETTERS, require_truth, texts

COLOURS = ["red", "blue"]
TABLE = pa.Table.from_pylist([
    {"list": COLOURS, "struct": {"A": "red", "B": "blue", "C": None}},
    {"list": None, "struct": {"A": None, "B": None, "C": None}},
    {"list": [], "struct": {"A": "red", "B": "blue", "C": "green"}},
])  # fmt: skip


@pytest.mark.parametrize(
    "written",
    [
        COLOURS,
        tuple(COLOURS),
        np.array(COLOURS),
        np.array(COLOURS, dtype=object),
        np.array({"A": "red", "B": "blue"}, dtype=object),
        {"A": "red", "B": "blue"},
        {"B": "blue", "A": "red"},
        MappingProxyType({"A": "red", "B": "blue"}),
        OmegaConf.create(COLOURS),
        OmegaConf.create({"A": "red", "B": "blue"}),
        ["A. red", "B. blue"],
        ["(A) red", "B) blue"],
        {"A": "A. red", "B": "B. blue"},
        [" red ", "blue\n"],
        TABLE["list"].to_pylist()[0],
        TABLE["struct"].to_pylist()[0],  # with a null for the letter that only another row has
        TABLE.to_pandas()["list"][0],
        TABLE.to_pandas()["struct"][0],
    ],
)
def test_every_form_of_options_is_the_list_of_their_texts(written: object) -> None:
    assert texts(written) == options.given(written) == COLOURS


@pytest.mark.parametrize(
    "written", [None, [], (), {}, np.array([]), TABLE["struct"].to_pylist()[1], TABLE["list"].to_pylist()[1]]
)
def test_options_that_are_not_there_are_none(written: object) -> None:
    assert options.given(written) == []
    with pytest.raises(ValueError, match="options must be"):
        texts(written)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("red, blue", "must be a list of texts, not str: 'red, blue'"),
        (b"red", "every option must be a text"),
        (3, "must be a list of texts, not int: 3"),
        ({"red", "blue"}, "must be a list of texts, not set"),  # without an order they have no letters
        (np.array("red"), "must be a list of texts, not str"),
        ([1, 2], "every option must be a text"),
        (np.array([1.5, 2.5]), "every option must be a text"),
        ([["red"], ["blue"]], "every option must be a text"),
        (["red", None], "every option must be a text"),
        (["red", " "], "every option must be a text that is not empty"),
        ({"A": "red", "B": ""}, "every option must be a text that is not empty"),
        ({"A": "red", "B": 2}, "every option must be a text"),
        (["red"], "must be 2 to 10, not 1"),
        ([f"colour {n}" for n in range(11)], "must be 2 to 10, not 11"),
        (["red", "red"], "must differ by more than case"),
        (["The car.", "a car"], "must differ by more than case"),
        (["caf\u00e9", "cafe\u0301"], "must differ by more than case"),
        ({"A": "red", "C": "blue"}, r"by the letters from A to J, none left out, not by \['A', 'C'\]"),
        ({"A": "red", "B": None, "C": "blue"}, r"by the letters from A to J, none left out, not by \['A', 'C'\]"),
        ({"red": 1, "blue": 2}, "by the letters from A"),
        ({0: "red", "A": "blue"}, "by the letters from A"),
        ({letter: f"colour {letter}" for letter in "ABCDEFGHIJK"}, "by the letters from A to J"),
    ],
)
def test_options_that_are_none_are_refused_with_what_is_wrong(written: object, message: str) -> None:
    for read in (texts, options.given):
        with pytest.raises(ValueError, match=message):
            read(written)


words = st.text("klmnopqrstuvwxyz", min_size=3, max_size=8)
option_lists = st.lists(words, min_size=2, max_size=10, unique=True)


@given(option_lists)
def test_reading_options_twice_changes_nothing_and_every_form_is_one(found: list[str]) -> None:
    by_letter = dict(zip(LETTERS, found, strict=False))
    lettered = [f"{letter}. {text}" for letter, text in by_letter.items()]
    assert texts(found) == texts(texts(found)) == texts(by_letter) == texts(lettered) == texts(np.array(found)) == found


@given(option_lists, st.data())
def test_the_truth_is_a_letter_or_a_text_of_the_options(found: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(found) - 1))
    for truth in (LETTERS[index], f"({LETTERS[index].lower()})", found[index], f"{LETTERS[index]}. {found[index]}"):
        assert require_truth(truth, found) == index
    for none in ("abc", "", *LETTERS[len(found) :], f"{LETTERS[0]} or {LETTERS[1]}"):
        with pytest.raises(ValueError, match="not among the options"):
            require_truth(none, found)


@pytest.mark.parametrize(
    ("written", "truth"),
    [
        ("B", "B"),
        (" It falls.\n", "It falls."),
        ("<answer>B</answer>", "B"),
        ("<answer> It falls. </answer>", "It falls."),
        ("<reason>It is heavy.</reason><answer>It falls.</answer>", "It falls."),
        (np.str_("B"), "B"),
        (3, "3"),
        (-2.5, "-2.5"),
        (np.int64(12), "12"),
        (np.float32(0.5), "0.5"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("<left of the wall>", "<left of the wall>"),
    ],
)
def test_a_truth_is_a_text_without_its_tags(written: object, truth: str) -> None:
    assert truth_text(written) == truth


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (float("nan"), "must be finite, not nan"),
        (float("-inf"), "must be finite, not -inf"),
        (True, "must be a text or a number, not bool"),
        (None, "must be a text or a number, not NoneType"),
        (["B"], r"must be a text or a number, not list: \['B'\]"),
        ({"answer": "B"}, "must be a text or a number, not dict"),
        (b"B", "must be a text or a number, not bytes"),
        (np.array(["B"]), "must be a text or a number, not ndarray"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("<answer></answer>", "tag other than one pair"),
        ("<answer>B", "tag other than one pair.*<answer>"),
        ("<answer>B</answer><answer>C</answer>", "tag other than one pair"),
        ("<ans>B</ans>", "<ans> in"),
        ("<answer><ans>B</ans></answer>", "<ans> in"),
        ("It rolls. <image>", "<image> in"),
        ("<rimage> It fell.", "<rimage> in"),
        ('<span class="x">B</span>', "tag other than"),
        ("<|latent|>", r"<\|latent\|> in"),
    ],
)
def test_a_truth_that_is_none_is_refused_with_what_is_wrong(written: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        truth_text(written)
