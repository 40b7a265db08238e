import pytest

from data_prep.toy.examples import Example


def example(**changed):
    values = {
        "id": "one",
        "split": "2-hop",
        "data_source": "set/2-hop",
        "video": "clips/one.mp4",
        "question": "What next?",
        "options": ["up", "down", "left", "right"],
        "right": 2,
        "image": [1, 2],
        "reasoning_image": [5, 7],
        "reasons": ["first", "then"],
    }
    return Example(**(values | changed))


def test_a_row_imagines_a_frame_before_each_reason():
    row = example().row("text")
    human, gpt = (turn["value"] for turn in row["conversations"])
    assert human == "<image><image>What next?\nA. up\nB. down\nC. left\nD. right"
    assert gpt == "<image><reason>first</reason><image><reason>then</reason><answer>left</answer>"
    assert row["cot"] == "<reason>first</reason><reason>then</reason><answer>left</answer>"


@pytest.mark.parametrize(("answers", "answer"), [("text", "left"), ("letter", "C")])
def test_answers_are_texts_or_letters(answers, answer):
    row = example().row(answers)
    assert row["answer"] == answer
    assert f"<answer>{answer}</answer>" in row["conversations"][1]["value"]


def test_unknown_form_of_answers_is_refused():
    with pytest.raises(ValueError, match="number"):
        example().row("number")


@pytest.mark.parametrize("changed", [{"options": ["up", "up", "left", "right"]}, {"options": ["a"]}, {"reasons": ["one"]}])
def test_inconsistent_examples_are_refused_by_name(changed):
    with pytest.raises(ValueError, match="one"):
        example(**changed)
