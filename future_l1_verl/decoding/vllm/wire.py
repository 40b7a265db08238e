"""Latents as they travel: as numpy arrays between vLLM's processes, as text where it has to be JSON. Needs no vLLM."""

from __future__ import annotations

import base64
import binascii

import numpy as np
import torch
from torch import Tensor


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


def from_text(text: str) -> Tensor:
    """The float32 ``[T, H]`` of `to_text`. Raises ValueError if ``text`` is none of its."""
    try:
        shape, data = text.split(":")
        values = np.frombuffer(base64.b64decode(data, validate=True), np.float32)
        return torch.from_numpy(values.reshape([int(size) for size in shape.split("x")]).copy())
    except (ValueError, AttributeError, binascii.Error) as error:
        raise ValueError(f"latents are not as wire.to_text writes them: {error}") from error
