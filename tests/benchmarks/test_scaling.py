"""The arithmetic of docs/scaling.md: of the model and the layout that it says, and what the page shows."""

import re
from pathlib import Path

import pytest
import torch
from scaling import CHUNKS_ALIVE, GPU, MODEL, STEP, tables, training
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from future_l1_verl.config.tree import composed
from future_l1_verl.latents.tokens import LatentTokens
from future_l1_verl.modeling.head import Head
from future_l1_verl.modeling.packing import Packing
from future_l1_verl.training.balancing import first_of_parts, over_ranks, packed_tokens

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
    assert MODEL.head_parameters == model.lm_head.weight.numel() == model.get_input_embeddings().weight.numel()
    layers = model.model.language_model.layers
    # The norm after the layers is a vector.
    assert MODEL.decoder - sum(each.numel() for each in layers.parameters()) == MODEL.hidden


def test_a_question_is_packed_as_the_engine_packs_it() -> None:
    packing = Packing((STEP.prompt,), (STEP.answer,) * STEP.siblings, (0,) * STEP.siblings)
    assert len(packing) == STEP.packed
    recipe = (ROOT / "recipes/la_dapo_qwen3vl8b.sh").read_text()
    prompt, response = map(int, re.search(r"^prompt=(\d+) response=(\d+)$", recipe, re.MULTILINE).groups())
    tree = composed("rl", [f"data.max_prompt_length={prompt}", f"data.max_response_length={response}"])
    assert STEP.micro_batch == tree.actor_rollout_ref.actor.ppo_max_token_len_per_gpu == prompt + response


@pytest.mark.parametrize("devices", [8, 32, 64, 256])
def test_training_is_of_the_tokens_that_balancing_leaves_to_the_ranks(devices: int) -> None:
    questions = [number // STEP.siblings for number in range(STEP.answers)]
    prompts, answers = [STEP.prompt] * STEP.answers, [STEP.answer] * STEP.answers
    parts = over_ranks(questions, prompts, answers, devices)
    tokens = sum(packed_tokens(part, questions, prompts, answers) for part in parts)
    shown = sum(len(first_of_parts([questions[row] for row in part], [len(part)])) for part in parts)
    # Between three passes and two lies one forward pass: 2 operations a parameter and token.
    language = tokens * MODEL.decoder + STEP.answers * STEP.answer * MODEL.head_parameters
    forward = 2 * (language + shown * STEP.patches * MODEL.vision) / (devices * GPU.flops * GPU.training_share)
    rows, three, two = training(devices)
    assert three - two == pytest.approx(forward)
    assert two < three < rows


def test_as_many_chunks_of_logits_are_alive_as_it_says() -> None:
    rows, vocabulary, hidden, chunks = 256, 4096, 8, 8
    linear = torch.nn.Linear(hidden, vocabulary, bias=False, dtype=torch.bfloat16)
    states = torch.randn(rows, hidden, dtype=torch.bfloat16, requires_grad=True)
    said = torch.arange(rows) % 3 + 9
    head = Head(linear.weight, LatentTokens(4, 5, 6), (7, 8), chunk=rows * vocabulary // chunks)
    # The scratch space of oneDNN's products is another on each kind of CPU.
    plain = torch.backends.mkldnn.flags(enabled=False)
    with plain, profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        # As in an update: the entropy is shown, and not trained.
        head(states, said, said, torch.zeros(0, dtype=torch.int64), 0.9, entropy=True)[0].sum().backward()
    alive = most = 0
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda each: each.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    assert most / (rows * vocabulary * 4 / chunks) == pytest.approx(CHUNKS_ALIVE, rel=0.05)


def test_the_page_shows_what_the_script_prints() -> None:
    page = (ROOT / "docs/scaling.md").read_text()
    for table in tables().values():
        assert table in page
