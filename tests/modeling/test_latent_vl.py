"""The training forward of both backbones against the plain oracle, which shares no code with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from future_l1_verl.decoding import hf
from future_l1_verl.latents.likelihood import decision_entries
from future_l1_verl.latents.spans import Role, feeding_positions
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling import tiny
from future_l1_verl.modeling.backbones import LatentQwen2_5VL, adopt
from future_l1_verl.modeling.latent_vl import LatentOutput, LatentVL
from future_l1_verl.sft.objective import squared_error


@pytest.fixture(scope="module", params=tiny.BACKBONES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    tiny.build(out, seed=0, backbone=request.param)
    return out


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


@pytest.fixture
def model(checkpoint: Path) -> LatentVL:
    module = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    return adopt(module, squared_error)


def prompt(checkpoint: Path, seed: int) -> dict[str, torch.Tensor]:
    processor = AutoProcessor.from_pretrained(checkpoint)
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What does the red ball hit next?"}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    return dict(processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt"))


def mixed_prompt(checkpoint: Path, seed: int) -> dict[str, torch.Tensor]:
    """A video of four frames, at one frame per second, and then an image."""
    processor = AutoProcessor.from_pretrained(checkpoint)
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    content = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "What is next?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    metadata = {"fps": 1.0, "duration": 4.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}
    return dict(
        processor(
            text=[text], images=[Image.fromarray(pixels[4])], videos=[pixels[:4]], video_metadata=[metadata],
            do_sample_frames=False, return_tensors="pt",
        )
    )  # fmt: skip


def response(settings: LatentSettings, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Text, a span that ends by choice, text, a span that ends at the budget; and random latents for it."""
    t, generator = settings.tokens, torch.Generator().manual_seed(seed)
    text = torch.randint(20, 400, (6,), generator=generator).tolist()
    stopped = [t.start, t.latent, t.latent, t.end]
    full = [t.start, *[t.latent] * settings.max_latents, t.end]
    ids = torch.tensor(text[:2] + stopped + text[2:4] + full + text[4:])
    return ids, torch.randn(2 + settings.max_latents, 128, generator=generator)


def positions(plain: PreTrainedModel, inputs: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """``[4, 1, T]`` as verl passes them."""
    kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, ids.shape[1] - inputs["input_ids"].shape[1]).int()], dim=1)
    grids = {key: inputs.get(key) for key in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")}
    rope, _ = plain.model.get_rope_index(ids, mm_token_type_ids=kinds, **grids)
    return torch.cat([torch.arange(ids.shape[1])[None, None], rope])


def run(model: LatentVL, plain: PreTrainedModel, inputs: dict, ids: torch.Tensor, **latents: torch.Tensor) -> LatentOutput:
    sequence = torch.cat([inputs["input_ids"], ids[None]], dim=1)
    pictures = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    seen = {key: inputs[key] for key in pictures if key in inputs}
    return model(sequence, torch.ones_like(sequence), positions(plain, inputs, sequence), **seen, **latents)


def test_log_probs_and_hidden_states_are_the_oracles(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 1)
    ids, latents = response(model.latent, 1)
    expected = hf.score(plain, inputs, ids, latents, model.latent, temperature=0.7)

    states = []
    model.objective = lambda h, z: states.append((h, z)) or torch.zeros(len(h))
    with torch.no_grad():
        output = run(model.eval(), plain, inputs, ids, latents=latents, temperature=0.7)
    (hidden, targets), start = states[0], inputs["input_ids"].shape[1] - 1
    assert torch.equal(targets, latents)
    torch.testing.assert_close(hidden, expected.hidden, atol=1e-5, rtol=0)

    roles = expected.layout.roles
    log_probs = (output.logits[0, start:-1] / 0.7).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    entries = decision_entries(roles, log_probs, output.log_go_on[0, start:-1])
    placeholders = [model.config.image_token_id, model.config.video_token_id]
    banned = plain_mass(plain, inputs, ids, latents, model.latent, placeholders)
    # The oracle knows nothing of verl's ban of placeholders: their mass is taken out of its text entries here.
    text = (roles == Role.TEXT) | (roles == Role.STOP)
    torch.testing.assert_close(entries[text], (expected.logprobs - banned)[text], atol=1e-5, rtol=0)
    assert entries[expected.layout.forced].abs().max() == 0


def plain_mass(plain, inputs: dict, ids, latents, settings: LatentSettings, tokens: list[int]) -> torch.Tensor:
    """log(1 - p(tokens)) at temperature 0.7 for each response index, with ``<|latent|>`` impossible in text."""
    layout = hf.score(plain, inputs, ids, latents, settings).layout
    states = hf._hidden_states(plain, inputs, ids, latents, layout.slots)
    logits = plain.lm_head(states[inputs["input_ids"].shape[1] - 1 : -1]).detach() / 0.7
    logits[layout.roles == Role.TEXT, settings.tokens.latent] = float("-inf")
    return torch.log1p(-logits.softmax(-1)[:, tokens].sum(-1))


def test_without_injection_the_same_check_fails(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 2)
    ids, latents = response(model.latent, 2)
    with torch.no_grad():
        right = run(model, plain, inputs, ids, latents=latents).logits
        embedding = model.get_input_embeddings().weight[model.latent.tokens.latent]
        wrong = run(model, plain, inputs, ids, latents=embedding.expand_as(latents)).logits
    after_span = inputs["input_ids"].shape[1] + 3
    assert (right - wrong)[0, after_span:].abs().max() > 0.1
    assert torch.equal(right[0, :after_span], wrong[0, :after_span])


def future_frames(model: LatentVL, settings: LatentSettings, ids: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """One random frame per slot, each a single embedding."""
    vision, slots = model.config.vision_config, int((ids == settings.tokens.latent).sum())
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    merge = vision.spatial_merge_size
    pixels = torch.randn(slots * merge**2, patch, generator=torch.Generator().manual_seed(seed))
    return {"latent_pixel_values": pixels, "latent_grid_thw": torch.tensor([[1, merge, merge]] * slots)}


def test_stage_1_measures_the_hidden_state_that_feeds_a_slot_against_its_frame(checkpoint: Path, plain, model) -> None:
    inputs = prompt(checkpoint, 3)
    ids, _ = response(model.latent, 3)
    frames = future_frames(model, model.latent, ids, 3)
    with torch.no_grad():
        target = plain.model.visual(frames["latent_pixel_values"], grid_thw=frames["latent_grid_thw"]).pooler_output
        feeding_states = hf.score(plain, inputs, ids, target, model.latent).hidden
        term = run(model, plain, inputs, ids, **frames).latent_term[0]
    start = inputs["input_ids"].shape[1]
    feeding = feeding_positions(torch.cat([torch.zeros(start, dtype=torch.bool), ids == model.latent.tokens.latent]))
    torch.testing.assert_close(term[feeding], (feeding_states - target).square().mean(-1), atol=1e-5, rtol=1e-5)
    assert term[~feeding].abs().max() == 0


def test_no_gradient_reaches_the_target(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 4)
    ids, _ = response(model.latent, 4)
    frames = future_frames(model, model.latent, ids, 4)
    pixels = frames["latent_pixel_values"].requires_grad_()
    inputs["pixel_values"] = inputs["pixel_values"].requires_grad_()
    run(model, plain, inputs, ids, **frames).latent_term.sum().backward()
    assert pixels.grad is None or pixels.grad.abs().max() == 0
    assert inputs["pixel_values"].grad.abs().max() > 0  # the observed frames are no target: gradient does flow there


def test_a_batch_without_pictures_still_calls_the_tower_and_gives_its_parameters_zero_gradients(model, checkpoint) -> None:
    calls = []
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.tensor([[20, 21, 22]])
    model(ids, torch.ones_like(ids), torch.arange(3).expand(4, 1, 3)).logits.sum().backward()
    assert len(calls) == 1
    gradients = [p.grad for p in model.model.visual.parameters() if p.grad is not None]
    assert gradients and all(float(g.abs().max()) == 0 for g in gradients)


def test_a_video_an_image_and_future_frames_take_one_call_of_the_tower(checkpoint: Path, plain, model: LatentVL) -> None:
    """The video stands before the image in the sequence, and after it in the call."""
    inputs = mixed_prompt(checkpoint, 6)
    ids, _ = response(model.latent, 6)
    frames = future_frames(model, model.latent, ids, 6)
    if isinstance(model, LatentQwen2_5VL):
        with pytest.raises(ValueError, match=r"data\.observed=frames"):
            run(model, plain, inputs, ids, **frames)
        inputs = prompt(checkpoint, 6)
    calls, states = [], []
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    model.objective = lambda h, z: states.append((h, z)) or torch.zeros(len(h))
    with torch.no_grad():
        target = plain.model.visual(frames["latent_pixel_values"], grid_thw=frames["latent_grid_thw"]).pooler_output
        expected = hf.score(plain, inputs, ids, target, model.latent).hidden
        run(model, plain, inputs, ids, **frames)
    (hidden, latents), *_ = states
    assert len(calls) == 1
    torch.testing.assert_close(latents, target, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tower", [True, False])
@pytest.mark.parametrize("merger", [True, False])
def test_exactly_what_is_not_frozen_gets_gradients(tower: bool, merger: bool, checkpoint: Path, plain, model: LatentVL) -> None:
    model.freeze(tower=tower, merger=merger)
    inputs = prompt(checkpoint, 7)
    ids, _ = response(model.latent, 7)
    output = run(model, plain, inputs, ids, **future_frames(model, model.latent, ids, 7))
    (output.logits.square().mean() + output.latent_term.sum()).backward()
    groups: dict[str, set[bool]] = {}
    for name, parameter in model.named_parameters():
        group = "merger" if "merger" in name else "tower" if "visual" in name else "language"
        groups.setdefault(group, set()).add(parameter.grad is not None)
    assert groups == {"language": {True}, "tower": {not tower}, "merger": {not merger}}


OTHERS: list[tuple[type[PreTrainedModel], PreTrainedConfig]] = [
    (Qwen3ForCausalLM, Qwen3Config(num_hidden_layers=1)),
    (Qwen2VLForConditionalGeneration, Qwen2VLConfig(text_config={"num_hidden_layers": 1}, vision_config={"depth": 1})),
    (
        Qwen3VLMoeForConditionalGeneration,
        Qwen3VLMoeConfig(
            text_config={"num_hidden_layers": 1, "num_experts": 2},
            vision_config={"depth": 1, "deepstack_visual_indexes": [0]},
        ),
    ),
]


@pytest.mark.parametrize(("architecture", "config"), OTHERS)
def test_another_architecture_is_refused(architecture: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    with torch.device("meta"):
        module = architecture(config)
    message = (
        "latents are implemented for Qwen3VLForConditionalGeneration and Qwen2_5_VLForConditionalGeneration, "
        f"not for {architecture.__name__}"
    )
    with pytest.raises(TypeError, match=message):
        adopt(module, squared_error)
    assert type(module) is architecture


def test_a_checkpoint_without_the_tokens_is_refused_as_it_is(checkpoint: Path) -> None:
    module = AutoModelForImageTextToText.from_pretrained(checkpoint)
    architecture = type(module)
    del module.config.latent_token_id
    with pytest.raises(ValueError, match="lacks latent_token_id"):
        adopt(module, squared_error)
    assert type(module) is architecture


def test_a_latent_too_few_is_refused(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 5)
    ids, latents = response(model.latent, 5)
    with pytest.raises(ValueError, match="6 latent positions in input_ids but 5 latent vectors"):
        run(model, plain, inputs, ids, latents=latents[1:])
