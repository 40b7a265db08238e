"""The reward function of stock verl jobs."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from verl.trainer.ppo.reward import get_custom_reward_fn

from future_l1_verl.modeling import tiny
from future_l1_verl.rewards import score
from future_l1_verl.rewards.score import NoVerdict, compute_score

GOOD = "<reason>3 and 4</reason><answer>7</answer>"


def scored(reply: str, truth: str = "7", extra: dict | None = None, **kwargs) -> dict[str, float]:
    return asyncio.run(compute_score("sums", reply, truth, extra or {}, **kwargs))


def test_the_score_is_the_weighted_sum_of_its_parts() -> None:
    parts = scored(GOOD, accuracy=0.5, format=0.25)
    assert parts == {"score": 0.75, "acc": 1.0, "format": 1.0, "repetition": 0.0, "overlong": 0.0, "parsed": 1.0}
    repeated = scored("<answer>7</answer> go go go", repetition=1.0, repetition_ngram=1)
    # Four words, two of them repeated; right, but not of the shape.
    assert repeated["repetition"] == -0.5 and repeated["score"] == pytest.approx(0.9 - 0.5)


@pytest.mark.parametrize(
    ("reply", "acc", "parsed"),
    [(GOOD, 1, 1), ("7", 1, 1), ("8", 0, 1), ("<answer>7", 0, 0), ("", 0, 0), ("<answer></answer>", 0, 0)],
)
def test_what_is_graded_is_the_tag_or_the_whole_reply(reply: str, acc: float, parsed: float) -> None:
    graded = scored(reply)
    assert (graded["acc"], graded["parsed"]) == (acc, parsed)


def test_options_make_it_multiple_choice() -> None:
    assert scored("<answer>B</answer>", "right", {"options": ["left", "right"]})["acc"] == 1.0


def test_length_is_in_the_policys_tokens(tmp_path: Path) -> None:
    tiny.build_text(tmp_path)
    # " hits" is one token. With a limit of 12 and a buffer of 4: 0 at 8, -0.5 at 10, -1 from 12 on.
    kwargs = {"overlong": 1.0, "tokenizer": str(tmp_path), "max_response_length": 12, "overlong_buffer": 4}
    found = {words: scored(" hits" * words, **kwargs)["overlong"] for words in (8, 10, 12, 20)}
    assert found == {8: 0.0, 10: -0.5, 12: -1.0, 20: -1.0}
    with pytest.raises(ValueError, match="a weight on overlong needs"):
        scored(GOOD, overlong=1.0)


def test_a_failed_verdict_is_neither_right_nor_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """reference-audit.md, row 22: verl leaves a rollout out whose reward fails."""

    async def no_verdict(*_: object) -> None:
        return None

    monkeypatch.setattr(score, "assess", no_verdict)
    with pytest.raises(NoVerdict, match="'7'"):
        scored(GOOD)


def test_verl_finds_it_by_its_path() -> None:
    function = {"path": "pkg://future_l1_verl.rewards.score", "name": "compute_score", "reward_kwargs": {"accuracy": 0.5}}
    found = get_custom_reward_fn(SimpleNamespace(reward={"custom_reward_function": function}))
    assert asyncio.run(found("sums", GOOD, "7", {}))["score"] == pytest.approx(0.5 + 0.1)
