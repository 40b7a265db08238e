"""Replies as token ids of a toy vocabulary: one id per word, so that shapes are written as in paper section 1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.rewards.format import well_formed
from future_l1_verl.rewards.shape import SHAPES, SPAN, has_shape

WORDS = ["S", "Z", "E", "<reason>", "</reason>", "<answer>", "</answer>", "ball", "wall", "_", SPAN]
ID = {word: i for i, word in enumerate(WORDS)}
TOKENS = LatentTokens(ID["S"], ID["Z"], ID["E"])

SPAN_IDS, REASON, ANSWER = "S Z E", "<reason> ball </reason>", "<answer> wall </answer>"
PAIR = f"{SPAN_IDS} {REASON}"


def decode(ids: list[int]) -> str:
    return "".join(WORDS[i] for i in ids).replace("_", "\n ")


def formed(reply: str, shape: str = "interleaved", max_latents: int = 2, max_spans: int = 3) -> bool:
    ids = torch.tensor([ID[word] for word in reply.split()], dtype=torch.long)
    return well_formed(ids, TOKENS, max_latents, decode, max_spans, shape)


GOOD = {
    f"{PAIR} {ANSWER}": {"interleaved", "latent_first"},
    f"{PAIR} S Z Z E {REASON} {ANSWER}": {"interleaved", "latent_first"},
    f"{REASON} {PAIR} {ANSWER}": {"interleaved", "reason_first"},
    f"{REASON} {PAIR} {PAIR} {PAIR} {ANSWER}": {"interleaved", "reason_first"},
    f"{REASON} {ANSWER}": {"text_only"},
    f"_ {SPAN_IDS} _ {REASON} _ <answer> _ wall _ </answer> _": {"interleaved", "latent_first"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reply", GOOD)
def test_a_reply_has_the_shapes_of_its_kind_alone(reply: str, shape: str) -> None:
    assert formed(reply, shape) == (shape in GOOD[reply])


BAD = [
    "",
    "_",
    "ball",
    REASON,
    ANSWER,
    SPAN_IDS,
    f"{PAIR}",  # no answer
    f"{SPAN_IDS} {ANSWER}",  # span without its reason
    f"S E {REASON} {ANSWER}",  # audit row 18: empty span
    f"{SPAN_IDS} <reason> </reason> {ANSWER}",  # empty reason
    f"<reason> </reason> {ANSWER}",
    f"{SPAN_IDS} <reason> _ _ </reason> {ANSWER}",
    f"<reason> _ </reason> {ANSWER}",
    f"{PAIR} <answer> </answer>",  # empty answer
    f"{REASON} <answer> _ </answer>",
    " ".join([PAIR] * 50) + f" {ANSWER}",  # fifty spans
    " ".join([PAIR] * 4) + f" {ANSWER}",  # one more than allowed
    f"{SPAN_IDS} {SPAN_IDS} {REASON} {ANSWER}",
    f"{REASON} {REASON} {PAIR} {ANSWER}",
    f"{PAIR} {REASON} {ANSWER}",
    f"{REASON} {REASON} {ANSWER}",
    f"{PAIR} {ANSWER} {ANSWER}",  # two answers
    f"{REASON} {ANSWER} {ANSWER}",
    f"{PAIR} {ANSWER} ball",  # text after the answer
    f"{REASON} {ANSWER} ball",
    f"{PAIR} {ANSWER} {SPAN_IDS}",
    f"ball {PAIR} {ANSWER}",
    f"ball {REASON} {ANSWER}",
    f"{SPAN_IDS} ball {REASON} {ANSWER}",
    f"{ANSWER} {PAIR}",
    f"{ANSWER} {REASON}",
    f"{SPAN_IDS} <reason> <reason> ball </reason> </reason> {ANSWER}",  # nested
    f"<reason> ball {ANSWER} </reason>",
    f"{PAIR} <answer> <answer> wall </answer> </answer>",
    "<reason> <answer> ball </reason> wall </answer>",
    f"{SPAN_IDS} <reason> ball {SPAN_IDS} </reason> {ANSWER}",  # span inside a reason
    f"{PAIR} <answer> {SPAN_IDS} wall </answer>",
    f"<reason> ball {SPAN_IDS} </reason> {ANSWER}",
    f"{PAIR} <answer> wall",  # cut off
    f"{REASON} <answer> wall",
    f"{PAIR} {SPAN_IDS} <reason> ball",
    "S Z",
    f"{PAIR} S Z Z",
    f"S Z {REASON} {ANSWER}",  # unclosed span
    f"{REASON} S {ANSWER}",
    f"S Z Z Z E {REASON} {ANSWER}",  # over the budget
    f"{SPAN_IDS} E {REASON} {ANSWER}",  # an end token too many
    f"S {SPAN_IDS} {REASON} {ANSWER}",
    f"Z {PAIR} {ANSWER}",
    f"{SPAN_IDS} <reason> E </reason> {ANSWER}",
    f"<reason> ball E </reason> {ANSWER}",
    f"<reason> ball Z </reason> {ANSWER}",
    f"{SPAN_IDS} </reason> ball <reason> {ANSWER}",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reply", BAD)
def test_everything_else_has_none(reply: str, shape: str) -> None:
    assert not formed(reply, shape)


def test_a_span_forged_as_text_is_no_span() -> None:
    assert [shape for shape in SHAPES if formed(f"{SPAN} {REASON} {ANSWER}", shape)] == ["text_only"]


def test_an_unknown_shape_is_an_error_that_names_the_known_ones() -> None:
    for call in (lambda: has_shape("", "Interleaved"), lambda: formed("", "Interleaved")):
        with pytest.raises(ValueError, match="interleaved, latent_first, reason_first, text_only"):
            call()


body = st.text(st.characters(exclude_characters=SPAN), min_size=1).filter(lambda text: text.strip() and "<" not in text)
blank = st.text(" \n\t", max_size=3)


@st.composite
def replies(draw: st.DrawFn, shape: str) -> list[str]:
    """The pieces of a reply, as the grammar in words says."""
    reason = ["<reason>", draw(body), "</reason>"]
    pairs = [SPAN, *reason] * draw(st.integers(1, 6))
    lead = reason if shape == "reason_first" or (shape == "interleaved" and draw(st.booleans())) else []
    middle = reason if shape == "text_only" else [*lead, *pairs]
    return [*middle, "<answer>", draw(body), "</answer>"]


@given(st.sampled_from(SHAPES), st.data())
def test_the_grammar_passes_and_no_piece_may_be_dropped_or_doubled(shape: str, data: st.DataObject) -> None:
    pieces = data.draw(replies(shape))
    assert has_shape(data.draw(blank) + data.draw(blank).join(pieces) + data.draw(blank), shape)
    i = data.draw(st.integers(0, len(pieces) - 1))
    dropped, doubled = pieces[:i] + pieces[i + 1 :], pieces[: i + 1] + pieces[i:]
    # Without its first span an interleaved reply is led by a reason: still the shape if another span follows.
    led = shape == "interleaved" and i == 0 and pieces.count(SPAN) > 1 and pieces[0] == SPAN
    assert has_shape("".join(dropped), shape) == led
    is_text = pieces[i] not in (SPAN, "<reason>", "</reason>", "<answer>", "</answer>")
    assert has_shape("".join(doubled), shape) == is_text


@given(st.lists(st.sampled_from([*WORDS[3:], "<|latent|>", "<|latent_start|>"])), st.sampled_from(SHAPES))
def test_what_passes_ends_with_its_one_answer_and_has_the_spans_of_its_shape(pieces: list[str], shape: str) -> None:
    text = "".join(pieces)
    leads = {"interleaved": (0, 1), "latent_first": (0,), "reason_first": (1,), "text_only": (1,)}
    if has_shape(text, shape):
        assert text.count("<answer>") == 1 and text.endswith("</answer>") and "<|" not in text
        assert text.count("<reason>") - text.count(SPAN) in leads[shape]


def test_only_tags_of_the_grammar_are_tags() -> None:
    assert has_shape("<reason>a < b, <b>c</b></reason><answer>1 < 2</answer>", "text_only")


@pytest.mark.parametrize("token", ["<|latent_start|>", "<|latent|>", "<|latent_end|>"])
def test_control_tokens_spelled_out_have_no_place(token: str) -> None:
    assert not any(has_shape(f"<reason>a{token}</reason><answer>b</answer>", shape) for shape in SHAPES)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("shape", SHAPES)
def test_long_adversarial_texts_take_linear_time(shape: str) -> None:
    n = 200_000
    pair = f"{SPAN}<reason>a</reason>"
    for piece in ["<reason>", "<reason>a", "<", SPAN, pair, f"{pair}<answer>"]:
        assert not has_shape(piece * n, shape)
    for text in ["<reason>" + "a" * n, "<reason>" + " " * n, pair * n + "<answer>"]:
        assert not has_shape(text, shape)
    reply = "<reason>" + "a " * n + "</reason>" + (pair * n if shape != "text_only" else "") + "<answer>b</answer>"
    assert has_shape(reply, shape) == (shape != "latent_first")
