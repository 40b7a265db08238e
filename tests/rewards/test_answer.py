import pytest

from future_l1_verl.rewards.answer import Outcome, judge_by_rule

OPTIONS = ["left wall", "right wall", "the top wall", "blue ball"]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("B", Outcome.CORRECT),
        ("(b)", Outcome.CORRECT),
        ("B. right wall", Outcome.CORRECT),
        ("Right wall.", Outcome.CORRECT),
        ("the right wall", Outcome.CORRECT),
        ("The answer is B", Outcome.CORRECT),
        ("A", Outcome.WRONG),
        ("top wall", Outcome.WRONG),
        ("blue ball", Outcome.WRONG),
        ("A. right wall", Outcome.UNPARSED),  # letter and text contradict each other
        ("E", Outcome.UNPARSED),  # no such option
        ("bottom wall", Outcome.UNPARSED),
        ("B or C", Outcome.UNPARSED),
        ("Because it is near", Outcome.UNPARSED),  # a letter inside a word is no letter
        ("Dave opens the door, so B", Outcome.UNPARSED),
        ("", Outcome.UNPARSED),
    ],
)
def test_what_an_answer_chooses(answer: str, outcome: Outcome) -> None:
    assert judge_by_rule(f"<reason>A</reason><answer>{answer}</answer>", "right wall", OPTIONS) is outcome


@pytest.mark.parametrize("reply", ["B", "<answer>B", "<answer>B</answer><answer>A</answer>"])
def test_a_reply_without_one_answer_is_unparsed(reply: str) -> None:
    assert judge_by_rule(reply, "B", OPTIONS) is Outcome.UNPARSED


def test_the_truth_may_be_a_letter() -> None:
    assert judge_by_rule("<answer>blue ball</answer>", "D", OPTIONS) is Outcome.CORRECT


def test_a_truth_that_is_no_option_is_an_error_of_the_data() -> None:
    with pytest.raises(ValueError, match="not among the options"):
        judge_by_rule("<answer>A</answer>", "floor", OPTIONS)


def test_open_answers_compare_as_normalised_text() -> None:
    assert judge_by_rule("<answer> The Cup falls. </answer>", "cup falls") is Outcome.CORRECT
    assert judge_by_rule("<answer>and / or</answer>", "and/or") is Outcome.WRONG  # text is not edited (audit row 19)
