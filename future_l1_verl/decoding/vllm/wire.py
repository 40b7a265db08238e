"""Latents as they travel: as numpy arrays between vLLM's processes, as text where it has to be JSON. Needs no vLLM."""

from __future__ import annotations

import base64
import re

import numpy as np
import torch
from torch import Tensor

LARGEST = 65504  # number of half precision
_TEXT = re.compile(r"(\d{1,9})x(\d{1,9}):", re.ASCII)  # what is longer makes integers that no size is


def to_array(latents: Tensor) -> np.ndarray:
    """``[S, H]`` on the host, without a copy. numpy has no bfloat16: its bits travel as uint16."""
    return (latents.view(torch.uint16) if latents.dtype is torch.bfloat16 else latents).numpy()


def from_array(latents: np.ndarray) -> Tensor:
    """``[slots, H]`` in the dtype that they had before `to_array`."""
    found = torch.from_numpy(np.array(latents))
    return found.view(torch.bfloat16) if found.dtype is torch.uint16 else found


def to_text(latents: Tensor) -> str:
    """``[T, H]`` as float32: its two sizes, and its values in base64."""
    values = latents.detach().to("cpu", torch.float32).numpy()
    return f"{values.shape[0]}x{values.shape[1]}:{base64.b64encode(values.tobytes()).decode()}"


def from_text(text: str, width: int, most: int) -> Tensor:
    """The float32 ``[T, width]`` of `to_text`, with T up to ``most``.

    Raises ValueError if ``text`` is none of its, has other sizes, or has values that half precision does not hold: a model in
    it would compute with infinities. It may be anybody's; nothing is decoded that is larger than its sizes allow.
    """
    found = _TEXT.match(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("latents are not as wire.to_text writes them, ROWSxCOLUMNS:BASE64")
    rows, columns = map(int, found.groups())
    if columns != width or rows > most:
        raise ValueError(
            f"given latents have shape [{rows}, {columns}], not [k, {width}], the model's width, with k up to {most}"
        )
    size, start = 4 * rows * columns, found.end()
    if len(text) - start != 4 * -(-size // 3):
        raise ValueError(f"latents are not as wire.to_text writes them: {len(text) - start} letters for {size} bytes")
    try:
        data = base64.b64decode(text[start:], validate=True)
        values = np.frombuffer(data, np.float32).reshape(rows, columns)
    except ValueError as error:
        raise ValueError(f"latents are not as wire.to_text writes them: {error}") from error
    if not (np.abs(values) <= LARGEST).all():  # nor are those that are no numbers
        raise ValueError(f"given latents must be numbers between -{LARGEST} and {LARGEST}")
    return torch.from_numpy(values.copy())
