"""The arithmetic of docs/scaling.md: of the model that it says, and what the page shows."""

from pathlib import Path

import torch
from scaling import MODEL, tables
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

ROOT = Path(__file__).parents[2]


def test_parameters_are_those_of_transformers_class() -> None:
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": MODEL.hidden, "intermediate_size": 12288, "num_hidden_layers": MODEL.layers,
            "num_attention_heads": 32, "num_key_value_heads": MODEL.kv_heads, "head_dim": MODEL.head,
            "vocab_size": MODEL.vocabulary,
        },
        vision_config={
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24], "patch_size": 16,
        },
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    assert sum(each.numel() for each in model.parameters()) == MODEL.parameters
    assert sum(each.numel() for each in model.model.visual.parameters()) == MODEL.vision
    looked_up = model.get_input_embeddings().weight.numel()
    assert MODEL.language == MODEL.parameters - MODEL.vision - looked_up


def test_the_page_shows_what_the_script_prints() -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    for table in tables().values():
        assert table in page
