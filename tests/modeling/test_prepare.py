import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings
from future_l1_verl.modeling.prepare import RELATED, prepare

WORDS = ["<|endoftext|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "ball", "wall"]


def original(out: Path, rows: int, tied: bool, shard: str = "5GB") -> None:
    """A small Qwen3-VL without the tokens, with ``rows`` rows in its vocabulary matrices."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="ball"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=WORDS[0]).save_pretrained(out)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4}
    text = dict(vocab_size=rows, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    vision = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32, deepstack_visual_indexes=[0])
    config = Qwen3VLConfig(
        text_config=text | dict(num_key_value_heads=1, head_dim=16, rope_parameters=rope, tie_word_embeddings=tied),
        vision_config=vision,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(out, max_shard_size=shard)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize(("rows", "after"), [(len(WORDS), len(WORDS) + 3), (64, 64)])
def test_new_rows_start_as_related_ones_and_nothing_else_changes(tmp_path, tied, shard, rows, after) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    original(source, rows, tied, shard)
    settings = prepare(source, out, 4)
    assert LatentSettings.from_checkpoint(out) == settings and settings.max_latents == 4

    old = Qwen3VLForConditionalGeneration.from_pretrained(source).state_dict()
    new = Qwen3VLForConditionalGeneration.from_pretrained(out).state_dict()
    vocabulary = AutoTokenizer.from_pretrained(out).get_vocab()
    for name, tensor in old.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert len(new[name]) == after
            assert torch.equal(new[name][: len(WORDS)], tensor[: len(WORDS)])
            for token in CONTROL_TOKENS:
                assert torch.equal(new[name][vocabulary[token]], tensor[vocabulary[RELATED[token]]])
        else:
            assert torch.equal(new[name], tensor)


def test_the_new_tokens_are_single_ids_in_text(tmp_path: Path) -> None:
    original(tmp_path / "source", 64, True)
    tokens = prepare(tmp_path / "source", tmp_path / "out", 4).tokens
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode("<|latent_start|><|latent|><|latent_end|>") == [tokens.start, tokens.latent, tokens.end]


def test_a_prepared_checkpoint_can_be_given_another_budget(tmp_path: Path) -> None:
    original(tmp_path / "source", 64, True)
    first = prepare(tmp_path / "source", tmp_path / "four", 4)
    second = prepare(tmp_path / "four", tmp_path / "eight", 8)
    assert second == LatentSettings(first.tokens, 8)


@pytest.mark.parametrize("half", ["config", "tokenizer"])
def test_a_checkpoint_that_has_them_half_is_refused(tmp_path: Path, half: str) -> None:
    original(tmp_path / "source", 64, True)
    if half == "config":
        config = json.loads((tmp_path / "source/config.json").read_text())
        (tmp_path / "source/config.json").write_text(json.dumps(config | {"max_latents": 4}))
    else:
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "source")
        tokenizer.add_tokens(list(CONTROL_TOKENS[:2]), special_tokens=True)
        tokenizer.save_pretrained(tmp_path / "source")
    with pytest.raises(ValueError, match="only half"):
        prepare(tmp_path / "source", tmp_path / "out", 4)


def test_an_occupied_folder_is_not_overwritten(tmp_path: Path) -> None:
    original(tmp_path / "source", 64, True)
    with pytest.raises(ValueError, match="not empty"):
        prepare(tmp_path / "source", tmp_path / "source", 4)
