"""What a checkpoint says of its training, and what is taken for one that says nothing."""

import json
from pathlib import Path

from future_l1_verl.modeling.trained_as import TrainedAs, default_prompt, differences


def checkpoint(folder: Path, **keys: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"} | keys))
    return folder


def test_a_checkpoint_says_how_it_was_trained(tmp_path: Path) -> None:
    said = {"trained_system_prompt": None, "trained_observed": "video", "trained_shape": "text_only"}
    trained = TrainedAs.from_checkpoint(checkpoint(tmp_path, **said))
    assert (trained.system_prompt, trained.observed, trained.text_only) == (None, "video", True)
    assert differences(trained, {"system_prompt": None, "observed": "video"}) == []
    assert differences(trained, {"system_prompt": "Think.", "observed": "video"}) == [
        "system_prompt is 'Think.', but the checkpoint was trained with None"
    ]


def test_one_that_says_nothing_is_asked_in_our_words_and_differs_from_nothing(tmp_path: Path) -> None:
    for text_only, shape in ((False, "interleaved"), (True, "text_only")):
        trained = TrainedAs.from_checkpoint(checkpoint(tmp_path), text_only)
        assert (trained.system_prompt, trained.observed, trained.shape) == (default_prompt(text_only), "frames", shape)
        assert differences(trained, {"system_prompt": None, "observed": "video"}) == []
    assert ("<|latent_start|>" in default_prompt(False), "<|latent_start|>" in default_prompt(True)) == (True, False)
