"""Helpers for clients of ``vllm serve CHECKPOINT``: they build chat requests for latents and read latents from the reply::

    chat = as_trained(checkpoint, "What happens next?", ["frame1.png", "frame2.png"])
    reply = client.chat.completions.create(model=..., messages=chat, extra_body=chat_options(return_latents=True))
    latents = choice_latents(reply.choices[0])

See docs/guides/serving.md. Does not need vLLM. An answer is text as from any other model; the server removes the control
tokens of spans from it (``skip_special_tokens``).
"""

import base64
import io
import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from future_l1_verl.decoding.vllm import request_options
from future_l1_verl.decoding.vllm.settings import LATENT_KEY
from future_l1_verl.decoding.vllm.wire import from_array
from future_l1_verl.modeling.trained_as import TrainedAs

# If a request omits a parameter, a server takes it from the checkpoint's generation_config.json; an engine in this process
# does not. A request with these, a temperature, a top_p and a max_tokens gets the same answer from both. First the fields that
# every chat API has, then vLLM's own, which go into ``extra_body``.
NEUTRAL = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
NEUTRAL_VLLM = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}


def chat_options(**options: Any) -> dict[str, Any]:
    """Returns ``extra_body`` of a chat completion: the options of `request_options` in a form that the chat API accepts."""
    given = request_options(**options)
    return {"vllm_xargs": given | {LATENT_KEY: json.dumps(given[LATENT_KEY])}}


def as_trained(checkpoint: str | Path, question: str, pictures: Sequence[str | Path | Image] = ()) -> list[dict[str, Any]]:
    """Returns the messages of a question in the form that the checkpoint was trained on: its system prompt, then the pictures
    (URLs, paths of image files, or images), then the question.

    Raises ValueError for a checkpoint that was trained on videos: the chat API cannot send frames with their times.
    """
    trained = TrainedAs.from_checkpoint(checkpoint)
    if trained.observed == "video":
        raise ValueError(f"{checkpoint}: was trained on videos, whose frames have times that a chat API cannot be sent")
    system = [{"role": "system", "content": trained.system_prompt}] if trained.system_prompt else []
    shown = [{"type": "image_url", "image_url": {"url": _url(picture)}} for picture in pictures]
    return [*system, {"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


def _url(picture: str | Path | Image) -> str:
    if isinstance(picture, Image):
        data = io.BytesIO()
        picture.save(data, "PNG")
        return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    if str(picture).startswith(("http://", "https://", "data:")):
        return str(picture)
    kind = mimetypes.guess_type(picture)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"


def choice_latents(choice: Any) -> Tensor:
    """Returns the latents of a choice of a chat completion (openai's object or plain JSON), in the order of its slots.

    ``[slots, H]`` in the model's dtype, float32 ``[0, 0]`` if there are none or none were requested. A streamed reply has none.
    """
    text = choice.get("routed_experts") if isinstance(choice, dict) else choice.model_extra.get("routed_experts")
    if text is None:
        return torch.empty(0, 0)
    return from_array(np.load(io.BytesIO(base64.b64decode(text))))
