"""Encodes latents as numpy arrays for vLLM's processes, and as text for JSON. Does not need vLLM."""

import base64
import re

import numpy as np
import torch
from torch import Tensor

LARGEST = 65504  # the largest number of half precision
_TEXT = re.compile(r"(\d{1,9})x(\d{1,9}):", re.ASCII)  # longer numbers are not valid sizes


def to_array(latents: Tensor) -> np.ndarray:
    """Returns ``[S, H]`` on the host as an array, without a copy. numpy has no bfloat16, so its bits are sent as uint16."""
    return (latents.view(torch.uint16) if latents.dtype is torch.bfloat16 else latents).numpy()


def from_array(latents: np.ndarray) -> Tensor:
    """Returns latents ``[slots, H]`` in the dtype that they had before `to_array`."""
    found = torch.from_numpy(np.array(latents))
    return found.view(torch.bfloat16) if found.dtype is torch.uint16 else found


def to_text(latents: Tensor) -> str:
    """Returns ``[T, H]`` as text: its two sizes, and its float32 values in base64."""
    values = latents.detach().to("cpu", torch.float32).numpy()
    return f"{values.shape[0]}x{values.shape[1]}:{base64.b64encode(values.tobytes()).decode()}"


def from_text(text: str, width: int, most: int) -> Tensor:
    """Reads the float32 ``[T, width]`` of `to_text`, with T up to ``most``.

    Raises ValueError if ``text`` has another form or other sizes, or values outside half precision, which would become
    infinities in the model. The text may come from any client, so its length is checked against its sizes before decoding.
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
    if not (np.abs(values) <= LARGEST).all():  # also catches NaN
        raise ValueError(f"given latents must be numbers between -{LARGEST} and {LARGEST}")
    return torch.from_numpy(values.copy())
