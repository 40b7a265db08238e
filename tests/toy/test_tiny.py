import json

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from data_prep.toy.synthetic import words
from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings
from future_l1_verl.toy.pretrain import pretrain
from future_l1_verl.toy.tiny import BACKBONES, build


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, backbone):
    out = tmp_path_factory.mktemp("tiny")
    build(out, seed=1, max_latents=3, backbone=backbone)
    return out


@pytest.fixture(scope="module")
def model(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def processor(checkpoint):
    return AutoProcessor.from_pretrained(checkpoint)


def ask(processor, frames):
    content = [{"type": "image"} for _ in frames] + [{"type": "text", "text": "What?"}]
    messages = [{"role": "system", "content": "Think."}, {"role": "user", "content": content}]
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def test_it_is_a_small_fp32_model_of_its_backbone(model, backbone):
    assert type(model) is BACKBONES[backbone].model
    assert 1_000_000 < sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_vocabulary_has_no_padding_rows(model, processor):
    assert len(processor.tokenizer) == model.config.text_config.vocab_size == model.lm_head.weight.shape[0]
    assert sorted(processor.tokenizer.get_vocab().values()) == list(range(len(processor.tokenizer)))


def test_config_carries_the_latent_settings(checkpoint, model, processor):
    settings = LatentSettings.from_checkpoint(checkpoint)
    ids = [settings.tokens.start, settings.tokens.latent, settings.tokens.end]
    assert ids == processor.tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS))
    assert settings.max_latents == 3
    assert LatentSettings.from_config(model.config) == settings


def test_vllm_finds_the_language_model_of_qwen3_vl(tmp_path):
    build(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["text_config"]["architectures"] == ["Qwen3ForCausalLM"]


def test_markup_is_one_token_each_wherever_it_stands_and_survives_decoding(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = "<reason>red ball hits left wall</reason><answer>left wall</answer>"
    tokens = tokenizer.tokenize(text)
    assert [t for t in tokens if t.startswith("<")] == ["<reason>", "</reason>", "<answer>", "</answer>"]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert len(tokens) == 4 + 5 + 2  # every word of the set is one token


def test_any_text_survives_the_tokenizer(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = "Ünïcode, 汉字 and\ttabs\n  — too"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template(processor):
    assert ask(processor, [None, None]) == (
        "<|im_start|>system\nThink.<|im_end|>\n"
        "<|im_start|>user\n" + 2 * "<|vision_start|><|image_pad|><|vision_end|>" + "What?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_frame_is_four_embeddings_and_black_is_zero(model, processor):
    frames = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "white")]
    inputs = processor(text=ask(processor, frames), images=frames, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 2 * 4
    black, white = inputs["pixel_values"].chunk(2)
    assert torch.equal(black, torch.zeros_like(black))
    assert torch.equal(white, torch.full_like(white, 4.0))  # (1 - 0) / 0.25
    output = model(**inputs)
    assert output.logits.shape[-1] == len(processor.tokenizer)
    assert output.logits.isfinite().all()


def test_features_start_at_the_scale_of_hidden_states(model):
    pixels = torch.randn(16, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        features = model.model.visual(pixels, grid_thw=torch.tensor([[1, 4, 4]])).pooler_output
    assert features.pow(2).mean().sqrt().item() == pytest.approx(1, abs=0.2)


def test_same_seed_same_files_and_another_seed_other_weights(checkpoint, backbone, tmp_path):
    for name, seed in (("same", 1), ("other", 2)):
        build(tmp_path / name, seed=seed, max_latents=3, backbone=backbone)
    for path in checkpoint.iterdir():
        same = (tmp_path / "same" / path.name).read_bytes() == path.read_bytes()
        other = (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()
        assert same
        assert other == (path.name != "model.safetensors")


def test_building_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_tokenizer_of_other_texts(tmp_path):
    build(tmp_path, texts=["zebra crossing"] * 3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer.tokenize("zebra crossing")) == 2
    assert set(CONTROL_TOKENS) <= set(tokenizer.get_vocab())


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    out = tmp_path_factory.mktemp("set")
    write_set(out, Settings(train_questions=3, val_questions=2, test_questions=2), lambda items, label: items)
    return out


def test_pretraining_learns_and_repeats_and_keeps_the_rest_of_the_checkpoint(synthetic, backbone, tmp_path):
    runs = []
    for name in ("one", "two"):
        build(tmp_path / name, backbone=backbone)
        before = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        losses = pretrain(tmp_path / name, synthetic, steps=8, batch=4)
        after = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        runs.append((losses, after))
        assert losses[-1] < losses[0]
        assert before.keys() == after.keys()
        assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
    assert runs[0] == runs[1]


def test_pretraining_moves_the_vision_tower(synthetic, backbone, tmp_path):
    build(tmp_path, backbone=backbone)
    before = AutoModelForImageTextToText.from_pretrained(tmp_path).model.visual.patch_embed.proj.weight.clone()
    pretrain(tmp_path, synthetic, steps=1, batch=2)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path).model.visual.patch_embed.proj.weight
    assert not torch.equal(before, after)


def test_pretraining_without_captions_says_what_to_do(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_prep\.toy\.synthetic"):
        pretrain(checkpoint, tmp_path, steps=1)


def test_no_caption_word_is_unknown_to_the_tokenizer(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for sentence in words.sentences():
        pieces = len(sentence.replace("\n", " ").replace(".", " .").replace(",", " ,").replace("?", " ?").split())
        assert len(tokenizer.tokenize(sentence)) <= pieces + sentence.count("\n")
