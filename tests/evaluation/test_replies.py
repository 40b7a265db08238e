r"""Whole replies, as models write them, through the function that grades a run: does it answer, and is that right?

tests/rewards/test_answer.py has the grammar of answers; here tags, reasons and latents stand around them.
"""

import asyncio

import pytest

from future_l1_verl.data.rows import Row, Turn
from future_l1_verl.evaluation.grading import Verdict, grade_reply

OPTIONS = ["The ball hits the left wall", "The ball rolls off the table", "The dog catches the ball", "Nothing moves"]
SPAN = "<|latent_start|><|latent|><|latent|><|latent_end|>"

# Reply, whether it answers one definite thing, whether that is B, "The ball rolls off the table".
CHOICES = [
    # The shapes of training.
    (f"<reason>It rolls.</reason>{SPAN}<reason>It reaches the edge.</reason><answer>B</answer>", True, True),
    (f"{SPAN}<reason>It reaches the edge.</reason><answer>B</answer>", True, True),
    ("<reason>Option A cannot be: the wall is far.</reason><answer>B</answer>", True, True),
    ("<reason>So the answer is B.</reason><answer>C</answer>", True, False),
    ("<reason>I first thought A. No, C. D?</reason><answer>B</answer>", True, True),
    # Letters in their forms.
    ("<answer>(B)</answer>", True, True),
    ("<answer>b</answer>", True, True),
    ("<answer>\n  B.\n</answer>", True, True),
    ("<answer>**B**</answer>", True, True),
    ("<answer>The answer is B.</answer>", True, True),
    ("<answer>Option (b)</answer>", True, True),
    (r"<answer>\boxed{B}</answer>", True, True),
    (r"<answer>$\text{B}$</answer>", True, True),
    (r"<answer>\boxed{\textbf{(C)}}</answer>", True, False),
    ("<answer>B. The ball rolls off the table</answer>", True, True),
    ("<answer>B) it rolls off</answer>", True, True),
    ("<answer>A</answer>", True, False),
    ("<answer>d</answer>", True, False),
    # Letters inside words, and words that are letters (audit row 33).
    ("<answer>Dave opens the car door, so B</answer>", True, True),
    ("<answer>A dog comes in. B</answer>", True, True),
    ("<answer>Dave opens the car door</answer>", False, False),
    ("<answer>A dog comes in</answer>", False, False),
    ("<answer>I think so</answer>", False, False),
    ("<answer>Because Dan drops it</answer>", False, False),
    # Texts of options.
    ("<answer>The ball rolls off the table</answer>", True, True),
    ("<answer>the ball rolls off the table.</answer>", True, True),
    ("<answer>I expect that the ball rolls off the table after a while.</answer>", True, True),
    ("<answer>the dog catches the ball</answer>", True, False),
    ("<answer>The ball rolls</answer>", False, False),
    # Two things.
    ("<answer>A or B</answer>", False, False),
    ("<answer>B, C</answer>", False, False),
    ("<answer>The ball rolls off the table and the dog catches the ball</answer>", False, False),
    ("<answer>B. The dog catches the ball</answer>", False, False),
    # Negations.
    ("<answer>not A but B</answer>", True, True),
    ("<answer>It is not B</answer>", False, False),
    ("<answer>Not the dog catches the ball, but the ball rolls off the table</answer>", True, True),
    # What is no option.
    ("<answer>E</answer>", False, False),
    ("<answer>2</answer>", False, False),
    ("<answer>None of them</answer>", False, False),
    # Tags.
    ("B", False, False),
    ("The answer is B.", False, False),
    (r"\boxed{B}", False, False),
    ("<reason>It reaches the edge.</reason>", False, False),
    ("<answer></answer>", False, False),
    ("<answer> \n </answer>", False, False),
    ("<answer>B", False, False),
    ("B</answer>", False, False),
    ("<answer>B</answer><answer>B</answer>", False, False),
    ("<answer>A</answer> Wait. <answer>B</answer>", False, False),
    ("<Answer>B</Answer>", False, False),
    ("<answer>B</answer> as the video shows", True, True),
    (f"{SPAN}{SPAN}", False, False),
    ("", False, False),
]

# Truth, reply, parsed, correct: questions without options.
OPEN = [
    ("3", "<reason>One, two, three.</reason><answer>3</answer>", True, True),
    ("3", "<answer>The answer is 3.</answer>", True, True),
    ("3", "<answer>4</answer>", True, False),
    ("3", "<answer>3 balls</answer>", True, True),
    ("3", "<answer>3, 4</answer>", True, False),
    ("3", "3", False, False),
    ("0.5", r"<answer>\frac{1}{2}</answer>", True, True),
    ("1/2", r"<answer>$\boxed{\dfrac{2}{4}}$</answer>", True, True),
    ("1/2", "<answer>50%</answer>", True, True),
    ("1/2", r"<answer>\frac{1}{3}</answer>", True, False),
    ("1000", "<answer>1,000</answer>", True, True),
    ("The red cup.", "<answer>red cup</answer>", True, True),
    ("The red cup.", r"<answer>\text{The Red Cup}</answer>", True, True),
    ("The red cup.", "<answer>the blue cup</answer>", True, False),
    ("The red cup.", "<answer>Answer:</answer>", False, False),
    ("The red cup.", "<answer>red cup</answer><answer>red cup</answer>", False, False),
    # A letter as the truth: the options stand in the question.
    ("B", "<answer>Dave opens the car door, so B</answer>", True, True),
    ("B", "<answer>(b) it rolls off</answer>", True, True),
    ("B", "<answer>C</answer>", True, False),
    ("B", "<answer>A or B</answer>", False, False),
    ("B", "<answer>Dave opens the car door</answer>", False, False),
]


def graded(reply: str, truth: str, options: list[str] | None) -> Verdict:
    row = Row(turns=(Turn("user", "What happens next?"),), truth=truth, options=tuple(options or ()))
    return asyncio.run(grade_reply(reply, row, judge=None))


@pytest.mark.parametrize(("reply", "parsed", "correct"), CHOICES)
def test_a_reply_to_a_multiple_choice(reply: str, parsed: bool, correct: bool) -> None:
    expected = Verdict(parsed, {"accuracy": float(correct)})
    assert graded(reply, "B", OPTIONS) == graded(reply, OPTIONS[1], OPTIONS) == expected


@pytest.mark.parametrize(("truth", "reply", "parsed", "correct"), OPEN)
def test_a_reply_to_an_open_question(truth: str, reply: str, parsed: bool, correct: bool) -> None:
    assert graded(reply, truth, None) == Verdict(parsed, {"accuracy": float(correct)})
