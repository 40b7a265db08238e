r"""What a reply answers, and the shapes of replies without latents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.rewards.answer import grade
from future_l1_verl.rewards.boxed import boxes
from future_l1_verl.rewards.reply import said
from future_l1_verl.rewards.shape import SHAPES, TEXT_SHAPES, Tags, has_shape

THINK = Tags(reason="think")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("7", "7"),
        ("The answer is 7.", "The answer is 7."),
        ("<reason>3 and 4</reason><answer>7</answer>", "7"),
        ("<think>3 and 4</think><answer>7</answer>", "7"),
        ("<think>3 and 4</think>\nThe answer is 7.", "The answer is 7."),
        ("3 and 4</think>7", "7"),  # the template opened the thoughts
        ("<reason>3 and 4</reason> 7", "7"),
        ("<think>maybe <answer>6</answer></think><answer>7</answer>", "7"),
        (r"<think>maybe \boxed{6}</think> \boxed{7}", "7"),
        ("We add 3 and 4.\n\\boxed{7}", "7"),
        (r"First \boxed{6}, no: \boxed{7}", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ \{a, \text{b}\} }", r"\{a, \text{b}\}"),
        (r"\fbox{7}", "7"),
        (r"<answer>\boxed{7}</answer> \boxed{6}", r"\boxed{7}"),
        # no answer
        ("", None),
        (" \n", None),
        ("<think>3 and 4", None),
        ("<think>so <answer>7</answer>", None),
        ("<think>3 and 4</think>", None),
        ("<answer>7", None),
        ("<answer></answer>", None),
        (r"\boxed{}", None),
    ],
)
def test_what_a_reply_answers(reply: str, answer: str | None) -> None:
    assert said(reply) == answer
    assert said(reply.replace("answer>", "result>"), Tags(answer="result")) == answer


@pytest.mark.parametrize("reply", ["We add 3 and 4.\n\\boxed{7}", "<think>3 and 4</think>\nThe answer is 7.", r"\boxed{7.0}"])
def test_ordinary_replies_are_right(reply: str) -> None:
    assert grade(said(reply), "7").correct


PLAIN = st.text(st.characters(blacklist_characters="<>{}\\", blacklist_categories=["Cs", "Co"])).filter(str.strip)


@given(PLAIN, PLAIN, PLAIN)
def test_the_answer_is_the_same_behind_any_thoughts(thoughts: str, answer: str, before: str) -> None:
    for whole, said_then in (
        (answer, answer),
        (rf"{before}\boxed{{{answer}}}", answer),
        (f"<answer>{answer}</answer>", answer),
    ):
        for opened in ("<think>", ""):
            assert said(f"{opened}{thoughts}</think>{whole}") == said_then.strip()


@given(st.text("{}\\bx "))
def test_a_box_is_as_braces_close_it(text: str) -> None:
    for start, end, content in boxes(rf"\boxed{{{text}"):
        inside = (rf"\boxed{{{text}")[start:end]
        assert inside.endswith("}") and content in inside
        depth, escaped = 0, False
        for position, character in enumerate(inside):
            depth += 0 if escaped else {"{": 1, "}": -1}.get(character, 0)
            escaped = character == "\\" and not escaped
            assert depth > 0 or position < len(r"\boxed") or position == len(inside) - 1


BOXED = {
    r"<think>3 and 4</think>\boxed{7}": True,
    "<think>3 and 4</think>\nSo it is\n\\boxed{7}.\n": True,
    r"<think>or \boxed{6}?</think> \boxed{7}": True,  # a box is a part of the reasoning there
    r"\boxed{7}": False,
    r"<think></think>\boxed{7}": False,
    r"<think>3 and 4</think>7": False,
    r"<think>3 and 4</think>\boxed{}": False,
    r"<think>3 and 4</think>\boxed{6} or \boxed{7}": False,
    r"<think>3 and 4</think>\boxed{7": False,
    r"<think>3 and 4</think><answer>\boxed{7}</answer>": False,
    r"<think>3</think><think>4</think>\boxed{7}": False,
    "<think>3 and 4</think>\\boxed{7}<|latent|>": False,
}


@pytest.mark.parametrize("reply", BOXED)
def test_a_boxed_reply(reply: str) -> None:
    assert has_shape(reply, "boxed", THINK) == BOXED[reply]
    assert not has_shape(reply, "boxed")  # which asks for <reason>
    assert has_shape(reply.replace("think>", "reason>"), "boxed") == BOXED[reply]


def test_text_only_with_other_tags() -> None:
    reply = "<think>3 and 4</think> <result>7</result>"
    for tags in (Tags(), THINK, Tags(answer="result")):
        assert not has_shape(reply, "text_only", tags)
    assert has_shape(reply, "text_only", Tags("think", "result"))


@pytest.mark.timeout(60)  # quadratic time would be hours
@pytest.mark.parametrize("piece", ["<think>", "</think>", r"\boxed{", "{", "}", "<think></think>", "<answer>"])
def test_hostile_replies_take_linear_time(piece: str) -> None:
    assert said(piece * 200_000) in (None, piece * 200_000)
    assert not any(has_shape(piece * 200_000, shape, THINK) for shape in (*SHAPES, *TEXT_SHAPES))
