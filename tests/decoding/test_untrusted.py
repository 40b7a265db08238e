"""What anybody may send in the place of latents and options: refused with a reason, and nothing too large is decoded."""

from __future__ import annotations

import base64
import io
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams

from future_l1_verl.decoding.client import choice_latents
from future_l1_verl.decoding.vllm.settings import EngineSettings, SpanOptions
from future_l1_verl.decoding.vllm.wire import from_text, to_text
from future_l1_verl.latents.tokens import LatentTokens

ENGINE = EngineSettings(LatentTokens(10, 11, 12), SpanOptions(4), hidden_size=8, max_model_len=100, asynchronous=False)
DEEP = "[" * 100_000 + "]" * 100_000


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_what_to_text_writes_is_read(size: int = 8) -> None:
    for rows in (0, 1, 2, 3, 100):
        latents = torch.randn(rows, size)
        assert torch.equal(from_text(to_text(latents), size, 100), latents)
    largest = torch.tensor([[65504.0, -65504.0]])
    assert torch.equal(from_text(to_text(largest), 2, 1), largest)


def not_latents(width: int, most: int) -> dict[str, Any]:
    """What is no ``[T, width]``, T at most ``most``, by what it is instead."""
    row = to_text(torch.zeros(1, width))
    shape, letters = row.split(":")
    return {
        "a number": 5,
        "a list": [[0.0] * width],
        "no sizes": "AAAA",
        "three sizes": f"{shape}x1:{letters}",
        "a negative size": f"-{row}",
        "a size that no integer is": f"{'9' * 5000}x{width}:AAAA",
        "a size beyond 64 bits": f"{2**64}x{width}:AAAA",
        "rows that are not there": "1000000000x1000000000:AAAA",
        "more rows than tokens": to_text(torch.zeros(most + 1, width)),
        "another width": to_text(torch.zeros(1, width + 1)),
        "too few letters": row[:-4],
        "too many letters": row + "AAAA",
        "no base64": f"{shape}:{'*' * len(letters)}",
        "letters of another alphabet": f"{shape}:{'é' * len(letters)}",
        "not a number": to_text(torch.full((1, width), float("nan"))),
        "infinity": to_text(torch.full((1, width), float("-inf"))),
        "beyond half precision": to_text(torch.full((1, width), 1e30)),
        "a pickle": base64.b64encode(pickle.dumps([0.0])).decode(),
    }


NOT_LATENTS = not_latents(8, 100)


@pytest.mark.parametrize("place", ["prompt_latents", "given"])
@pytest.mark.parametrize("text", NOT_LATENTS.values(), ids=NOT_LATENTS.keys())
def test_what_are_no_latents_is_refused(place: str, text: Any) -> None:
    options = {"prompt_latents": text} if place == "prompt_latents" else {"intervene": "given", "given": text}
    with pytest.raises(ValueError, match="latents"):
        ENGINE.of_request(SamplingParams(extra_args={"latent": json.dumps(options)}))


NESTED, LONG = "[" * 900 + "]" * 900, "x" * 1_000_000
UNREADABLE = [
    *(DEEP, f'{{"seed": {DEEP}}}', f'{{"seed": {NESTED}}}', f'{{"intervene": {NESTED}}}'),
    *('{"sigma": 1e400}', f'{{"sigma": 1{"0" * 400}}}', json.dumps(LONG)),
    *(json.dumps(options) for options in ({LONG: 1}, {"seed": LONG}, {"intervene": LONG}, {"sigma": LONG})),
]


@pytest.mark.parametrize("options", UNREADABLE, ids=range(len(UNREADABLE)))
def test_options_that_are_deep_or_long_are_refused_in_a_short_message(options: str) -> None:
    with pytest.raises(ValueError) as refused:
        ENGINE.of_request(SamplingParams(extra_args={"latent": options}))
    assert len(str(refused.value)) < 400


def test_what_is_too_large_is_not_decoded() -> None:
    text = "1x8:" + "A" * 50_000_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="letters"):
        from_text(text, 8, 100)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_client_does_not_unpickle_what_a_server_sends(tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    array = io.BytesIO()
    np.save(array, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    for sent in (array.getvalue(), pickle.dumps(Payload(marker))):
        with pytest.raises(ValueError, match="pickle"):
            choice_latents({"routed_experts": base64.b64encode(sent).decode()})
    assert not marker.exists()
    np.load(io.BytesIO(array.getvalue()), allow_pickle=True)  # the payload would have done it
    assert marker.exists()
