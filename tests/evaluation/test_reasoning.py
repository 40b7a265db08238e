"""True reasoning is that of the row, whatever stands around it."""

import pytest

from future_l1_verl.evaluation.reasoning import is_true

TRUTH = (
    "<image><reason>blue ball hits left wall</reason><image><reason>blue ball hits top wall</reason><answer>top wall</answer>"
)
FIRST, SECOND = "<reason>blue ball hits left wall</reason>", "<reason>blue ball hits top wall</reason>"
SPAN = "<|latent_start|><|latent|><|latent_end|>"


@pytest.mark.parametrize(
    ("reply", "true"),
    [
        (f"{SPAN}{FIRST}{SPAN}{SECOND}<answer>bottom wall</answer>", True),  # the answer is another matter
        (f"{FIRST}\n{SECOND} <answer>top wall</answer>", True),
        (f"<reason> Blue ball hits left wall. </reason>{SECOND}", True),
        (f"{SECOND}{FIRST}<answer>top wall</answer>", False),
        (f"{SECOND}<answer>top wall</answer>", False),
        (f"{FIRST}{SECOND}{SECOND}<answer>top wall</answer>", False),
        (f"{FIRST}<reason>yellow square hits top wall</reason><answer>top wall</answer>", False),
        (f"{FIRST}<reason>blue ball hits top wall<answer>top wall</answer>", False),
        ("", False),
    ],
)
def test_each_reason_in_its_place_and_no_other(reply: str, true: bool) -> None:
    assert is_true(reply, TRUTH) == true
