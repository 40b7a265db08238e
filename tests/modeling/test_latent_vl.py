"""The training forward of both backbones against the plain oracle, which shares no code with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
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
from future_l1_verl.latents.errors import squared_error
from future_l1_verl.latents.spans import Role
from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling.backbones import LatentQwen2_5VL, install_latents
from future_l1_verl.modeling.latent_vl import LatentOutput, LatentVL
from future_l1_verl.modeling.packing import Packing
from future_l1_verl.toy import tiny


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
    return install_latents(module, squared_error)


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


PICTURES = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")


def run(model: LatentVL, plain: PreTrainedModel, inputs: dict, ids: torch.Tensor, **options: object) -> LatentOutput:
    return run_packed(model, plain, [inputs], [(0, ids)], **options)


def run_packed(
    model: LatentVL, plain: PreTrainedModel, prompts: list[dict], answers: list[tuple[int, torch.Tensor]], **options: object
) -> LatentOutput:
    """Answers, each with the number of its prompt."""
    rows = [torch.cat([prompts[question]["input_ids"], ids[None]], dim=1) for question, ids in answers]
    placed = [positions(plain, prompts[question], row)[:, 0] for (question, _), row in zip(answers, rows, strict=True)]
    packing = Packing(
        tuple(inputs["input_ids"].shape[1] for inputs in prompts),
        tuple(len(ids) for _, ids in answers),
        tuple(question for question, _ in answers),
    )
    seen = {
        key: torch.cat([inputs[key] for inputs in prompts if key in inputs])
        for key in PICTURES
        if any(key in inputs for inputs in prompts)
    }
    return model(packing.pack([row[0] for row in rows])[None], packing.pack(placed)[:, None], packing, **seen, **options)


def test_log_probs_and_hidden_states_are_the_oracles(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 1)
    ids, latents = response(model.latent, 1)
    expected = hf.score(plain, inputs, ids, latents, model.latent, temperature=0.7)

    with torch.no_grad():
        output = run(model.eval(), plain, inputs, ids, latents=latents, temperature=0.7, return_latent_states=True)
    assert torch.equal(output.latent_targets, latents)
    torch.testing.assert_close(output.latent_states, expected.hidden, atol=1e-5, rtol=0)
    decided = ~expected.layout.forced
    entries = reachable_entries(model, plain, inputs, ids, latents, expected.logprobs)
    torch.testing.assert_close(output.log_probs[decided], entries[decided], atol=1e-5, rtol=0)


def reachable_entries(model: LatentVL, plain, inputs: dict, ids, latents, logprobs: torch.Tensor) -> torch.Tensor:
    """The oracle's ``logprobs`` at temperature 0.7 without the mass of placeholders, of whose ban by verl it knows nothing."""
    placeholders = [model.config.image_token_id, model.config.video_token_id]
    banned = plain_mass(plain, inputs, ids, latents, model.latent, placeholders)
    p_end = -torch.expm1(logprobs)  # of a free slot, whose entry is log(1 - p(end))
    return torch.where(ids == model.latent.tokens.latent, torch.log1p(-p_end / banned.exp()), logprobs - banned)


def as_one_sequence(query, key, value, packing, scale, kernel):
    """The control: every token sees all before it, the answers of its siblings among them."""
    rows = (x.transpose(0, 1) for x in (query, key, value))
    return scaled_dot_product_attention(*rows, is_causal=True, scale=scale, enable_gqa=True).transpose(0, 1)


@pytest.mark.parametrize("isolated", [True, False])
def test_answers_that_share_prompts_are_the_oracles_one_by_one(
    isolated: bool, checkpoint: Path, plain, model: LatentVL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions with a picture each, their answers mixed; the oracle reads one answer at a time, with its own prompt."""
    prompts = [prompt(checkpoint, 1), prompt(checkpoint, 2)]
    answers = [(question, *response(model.latent, seed)) for seed, question in enumerate([1, 0, 1, 1, 0])]
    if not isolated:
        monkeypatch.setattr("future_l1_verl.modeling.attention.attend", as_one_sequence)
    with torch.no_grad():
        output = run_packed(
            model.eval(), plain, prompts, [(question, ids) for question, ids, _ in answers],
            latents=torch.cat([latents for *_, latents in answers]), temperature=0.7, return_latent_states=True,
        )  # fmt: skip
    apart = 0.0
    for log_probs, states, (question, ids, latents) in zip(
        output.log_probs.split([len(ids) for _, ids, _ in answers]),
        output.latent_states.split([len(latents) for *_, latents in answers]),
        answers,
        strict=True,
    ):
        expected = hf.score(plain, prompts[question], ids, latents, model.latent, temperature=0.7)
        entries = reachable_entries(model, plain, prompts[question], ids, latents, expected.logprobs)
        decided = ~expected.layout.forced
        gap = max((log_probs - entries)[decided].abs().max(), (states - expected.hidden).abs().max())
        apart = max(apart, float(gap))
    assert apart <= 1e-5 if isolated else apart >= 1e-3


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
        right = run(model, plain, inputs, ids, latents=latents).log_probs
        embedding = model.get_input_embeddings().weight[model.latent.tokens.latent]
        wrong = run(model, plain, inputs, ids, latents=embedding.expand_as(latents)).log_probs
    after = 4  # two words, the start token and the forced slot are decided before a latent is read
    assert (right - wrong)[after:].abs().max() > 0.1
    assert torch.equal(right[:after], wrong[:after])


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
        term = run(model, plain, inputs, ids, **frames).latent_term
    torch.testing.assert_close(term, (feeding_states - target).square().mean(-1), atol=1e-5, rtol=1e-5)


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
    model(ids, torch.arange(3).expand(4, 1, 3), Packing((2,), (1,), (0,))).log_probs.sum().backward()
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
    (output.log_probs.sum() + output.latent_term.sum()).backward()
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
        install_latents(module, squared_error)
    assert type(module) is architecture


def test_a_checkpoint_without_the_tokens_is_refused_as_it_is(checkpoint: Path) -> None:
    module = AutoModelForImageTextToText.from_pretrained(checkpoint)
    architecture = type(module)
    del module.config.latent_token_id
    with pytest.raises(ValueError, match="lacks latent_token_id"):
        install_latents(module, squared_error)
    assert type(module) is architecture


def test_a_latent_too_few_is_refused(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 5)
    ids, latents = response(model.latent, 5)
    with pytest.raises(ValueError, match="6 latent positions in input_ids but 5 latent vectors"):
        run(model, plain, inputs, ids, latents=latents[1:])


def test_latents_at_the_first_and_the_last_index_of_an_answer(checkpoint: Path, plain, model: LatentVL) -> None:
    """A prompt that ends in an open span: its last state feeds the first latent; nothing follows the last one."""
    t, inputs = model.latent.tokens, prompt(checkpoint, 8)
    opened = torch.cat([inputs["input_ids"], torch.tensor([[t.start]])], dim=1)
    inputs |= {"input_ids": opened, "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 1))}
    ids, latents = torch.tensor([t.latent, t.end, 30, t.start, t.latent]), torch.randn(2, 128)
    with torch.no_grad():
        found = run(model.eval(), plain, inputs, ids, latents=latents, return_latent_states=True)
        states = hf._hidden_states(plain, inputs, ids, latents, ids == t.latent)
    before = inputs["input_ids"].shape[1] - 1
    torch.testing.assert_close(found.latent_states, states[[before, before + 4]], atol=1e-5, rtol=0)


def test_a_latent_in_a_prompt_is_refused(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs = prompt(checkpoint, 9)
    inputs["input_ids"] = inputs["input_ids"].clone()
    inputs["input_ids"][0, -1] = model.latent.tokens.latent
    with pytest.raises(ValueError, match="stands in a prompt"):
        run(model, plain, inputs, torch.tensor([30, 31]), latents=torch.randn(1, 128))


def test_a_trained_tower_is_called_once_and_learns_from_all_answers(checkpoint: Path, plain, model: LatentVL) -> None:
    inputs, calls = prompt(checkpoint, 10), []
    answers = [(0, *response(model.latent, seed)) for seed in range(3)]
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))

    def gradients(chosen: list) -> dict[str, torch.Tensor]:
        model.zero_grad()
        latents = torch.cat([latents for *_, latents in chosen])
        run_packed(model, plain, [inputs], [each[:2] for each in chosen], latents=latents).log_probs.sum().backward()
        return {name: p.grad.clone() for name, p in model.model.visual.named_parameters() if p.grad is not None}

    together = gradients(answers)
    assert len(calls) == 1
    apart = [gradients([answer]) for answer in answers]
    for name, gradient in together.items():
        added = sum(each[name] for each in apart)
        assert float((gradient - added).norm()) <= 1e-5 * float(added.norm()) + 1e-7, name
