"""Checkpoints of the GPU's phases: a tokenizer as large as the vocabulary that reads text as the small one did."""

from __future__ import annotations

from pathlib import Path

from gpu.checkpoint import _fill_vocabulary, checkpoint
from transformers import AutoConfig, AutoTokenizer

TEXT = "<|im_start|>user\nWhat does the red ball hit next?<|latent_start|><|latent|><|latent_end|><answer>A</answer>"


def test_every_id_has_a_word_and_text_is_read_as_before(tmp_path: Path) -> None:
    path = checkpoint("tiny untied", tmp_path)
    small = AutoTokenizer.from_pretrained(path)
    _fill_vocabulary(path / "tokenizer.json", 3000)
    large = AutoTokenizer.from_pretrained(path)
    assert len(large) == 3000 > len(small) and large.convert_ids_to_tokens(2999) == "<|unused_2999|>"
    ids = small(TEXT)["input_ids"]
    assert large(TEXT)["input_ids"] == ids and large.decode(ids) == small.decode(ids) == TEXT
    # The control: without the added tokens in the model's vocabulary their ids would have moved.
    assert large.get_vocab()["</answer>"] == small.get_vocab()["</answer>"] < len(small)
    assert not AutoConfig.from_pretrained(path).tie_word_embeddings


def test_a_checkpoint_is_made_once(tmp_path: Path) -> None:
    path = checkpoint("tiny", tmp_path)
    before = (path / "config.json").stat().st_mtime_ns
    assert checkpoint("tiny", tmp_path) == path and (path / "config.json").stat().st_mtime_ns == before
