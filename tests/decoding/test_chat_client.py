"""What a client sends: a question as the checkpoint was trained to be asked."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from future_l1_verl.decoding.client import as_trained


def checkpoint(folder: Path, **keys: object) -> Path:
    (folder / "config.json").write_text(json.dumps({f"trained_{name}": value for name, value in keys.items()}))
    return folder


def test_the_system_prompt_is_that_of_training_and_pictures_come_first(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "frame.jpg")
    model = checkpoint(tmp_path, system_prompt="Imagine.", observed="frames", shape="interleaved")
    drawn = Image.new("RGB", (3, 2), "red")
    system, user = as_trained(model, "What next?", [tmp_path / "frame.jpg", "https://host/frame.png", drawn])
    assert system == {"role": "system", "content": "Imagine."}
    file, link, image, text = user["content"]
    kind, _, content = image["image_url"]["url"].partition(";base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/png" and shown.size == (3, 2) and shown.getpixel((2, 1)) == (255, 0, 0)
    kind, _, content = file["image_url"]["url"].partition(";base64,")
    assert kind == "data:image/jpeg" and base64.b64decode(content) == (tmp_path / "frame.jpg").read_bytes()
    assert link["image_url"]["url"] == "https://host/frame.png" and text == {"type": "text", "text": "What next?"}


def test_a_checkpoint_without_a_system_prompt_gets_none_and_one_of_videos_is_refused(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, system_prompt=None, observed="frames", shape="interleaved")
    assert [message["role"] for message in as_trained(model, "What next?")] == ["user"]
    checkpoint(tmp_path, system_prompt=None, observed="video", shape="interleaved")
    with pytest.raises(ValueError, match="was trained on videos"):
        as_trained(tmp_path, "What next?")
