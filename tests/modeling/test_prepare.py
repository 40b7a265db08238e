import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLVideoProcessor,
)

from future_l1_verl.cli import main
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings
from future_l1_verl.modeling import prepare as module
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


# The added tokens of Qwen3-VL; they follow 151,643 byte pairs.
NAMES = (
    *(
        "endoftext",
        "im_start",
        "im_end",
        "object_ref_start",
        "object_ref_end",
        "box_start",
        "box_end",
        "quad_start",
        "quad_end",
    ),
    *("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad", "tool_call", "/tool_call"),
    *("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep", "tool_response", "/tool_response"),
    *("think", "/think"),
)
QWEN3_VL_TOKENS = [f"<{name}>" if "think" in name or "tool" in name else f"<|{name}|>" for name in NAMES]
BYTE_PAIRS, TOKENS, PADDED = 151_643, 151_669, 151_936
WIDTH = 8
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def qwen_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All but weights and ``config.json``, in the files in which Qwen3-VL is published, its vocabulary in size and ids."""
    out = tmp_path_factory.mktemp("qwen")
    tokenizer = Tokenizer(models.WordLevel({f"pair{i}": i for i in range(BYTE_PAIRS)}, unk_token="pair0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in QWEN3_VL_TOKENS])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>").save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text()) | {
        "chat_template": TEMPLATE,
        "processor_class": "Qwen3VLProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (out / "vocab.json").write_text("{}")
    (out / "generation_config.json").write_text('{"eos_token_id": [151645, 151643], "top_p": 0.8}')
    Qwen2VLImageProcessor(patch_size=16).save_pretrained(out)
    Qwen3VLVideoProcessor(patch_size=16).save_pretrained(out)
    return out


@pytest.fixture
def qwen(tmp_path: Path, qwen_files: Path) -> Callable[..., Path]:
    """Makes a bf16 checkpoint in three shards: the embedding, the rest, the output head."""

    def write(rows: int = PADDED, tied: bool = False, flat: bool = False) -> Path:
        out = tmp_path / "source"
        shutil.copytree(qwen_files, out)
        config = tiny_config(rows, tied, flat)
        (out / "config.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(out), dtype=torch.bfloat16)
        shards: dict[str, dict[str, Tensor]] = {f"model-0000{i}-of-00003.safetensors": {} for i in (1, 2, 3)}
        first, middle, last = shards.values()
        for name, tensor in model.state_dict().items():
            if not (tied and name == "lm_head.weight"):
                kind = {"embed_tokens.weight": first, "lm_head.weight": last, "language_model.norm.weight": last}
                next((shard for end, shard in kind.items() if name.endswith(end)), middle)[name] = tensor
        for file, tensors in shards.items():
            save_file(tensors, out / file, metadata={"format": "pt"})
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensors in shards.values() for tensor in tensors.values())},
            "weight_map": {name: file for file, tensors in shards.items() for name in tensors},
        }
        (out / module.INDEX).write_text(json.dumps(index))
        return out

    return write


def tiny_config(rows: int, tied: bool, flat: bool) -> dict[str, Any]:
    """``config.json`` as it is published, of Qwen2.5-VL if ``flat``, else of Qwen3-VL; its model is of width 8."""
    text = dict(vocab_size=rows, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    text |= dict(num_key_value_heads=1, rope_theta=1e4)
    vision = dict(depth=1, num_heads=1, out_hidden_size=WIDTH, hidden_size=4, intermediate_size=8)
    config = {"tie_word_embeddings": tied, "image_token_id": 151655}
    if flat:
        rope = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
        return config | {"model_type": "qwen2_5_vl", "vision_config": vision | {"fullatt_block_indexes": [0]}} | text | rope
    text |= {"model_type": "qwen3_vl_text", "head_dim": 8, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision |= {"deepstack_visual_indexes": [0], "model_type": "qwen3_vl"}
    return config | {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}


def matrix(rows: int) -> Tensor:
    return torch.randn(rows, WIDTH).bfloat16()


def tensors(directory: Path) -> dict[str, Tensor]:
    return {name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize(("rows", "after"), [(len(WORDS), len(WORDS) + 3), (64, 64)])
def test_transformers_loads_it_and_finds_new_rows_as_related_ones_and_nothing_else_changed(
    tmp_path, tied, shard, rows, after
) -> None:
    """docs/differences.md, row 30."""
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


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("rows", "after"), [(PADDED, PADDED), (TOKENS, TOKENS + 3)])
def test_rows_of_a_vocabulary_of_qwens_size(tmp_path: Path, qwen, tied: bool, rows: int, after: int) -> None:
    source, out = qwen(rows, tied), tmp_path / "out"
    tokens = prepare(source, out, 4).tokens
    assert (tokens.start, tokens.latent, tokens.end) == (TOKENS, TOKENS + 1, TOKENS + 2)

    old, new = tensors(source), tensors(out)
    assert list(old) == list(new)
    for name, tensor in old.items():
        if name.endswith(module.MATRICES):
            expected = torch.cat([tensor, tensor.new_zeros(after - rows, WIDTH)])
            for token, related in {tokens.start: 151_652, tokens.latent: 151_655, tokens.end: 151_653}.items():
                expected[token] = tensor[related]
            tensor = expected
        assert new[name].dtype == tensor.dtype and bits(new[name]) == bits(tensor), name

    config, old_config = (json.loads((folder / "config.json").read_text()) for folder in (out, source))
    assert config["text_config"] == old_config["text_config"] | {"vocab_size": after, "architectures": ["Qwen3ForCausalLM"]}
    index, old_index = (json.loads((folder / module.INDEX).read_text()) for folder in (out, source))
    assert index["weight_map"] == old_index["weight_map"]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in new.values())


def test_shards_without_the_matrices_are_linked_and_the_source_stays_as_it_was(tmp_path: Path, qwen) -> None:
    source = qwen()
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    prepare(source, tmp_path / "out", 4)
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before
    linked = {file.name for file in source.iterdir() if file.samefile(tmp_path / "out" / file.name)}
    assert linked == {"model-00002-of-00003.safetensors"}


def test_a_shard_on_another_file_system_is_copied_and_one_in_a_hub_cache_followed(tmp_path: Path, qwen, monkeypatch) -> None:
    source, middle = qwen(), "model-00002-of-00003.safetensors"
    (source / middle).rename(tmp_path / "blob")
    (source / middle).symlink_to(tmp_path / "blob")
    prepare(source, tmp_path / "linked", 4)
    assert (tmp_path / "linked" / middle).samefile(tmp_path / "blob") and not (tmp_path / "linked" / middle).is_symlink()

    def no_link(*_: str) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(module.os, "link", no_link)
    prepare(source, tmp_path / "copied", 4)
    assert (tmp_path / "copied" / middle).read_bytes() == (source / middle).read_bytes()
    assert not (tmp_path / "copied" / middle).samefile(tmp_path / "blob")


def test_tokenizer_templates_and_processors_survive(tmp_path: Path, qwen) -> None:
    source, out = qwen(), tmp_path / "out"
    prepare(source, out, 4)
    assert {file.name for file in source.iterdir()} <= {file.name for file in out.iterdir()}
    for file in ("generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json"):
        assert (out / file).read_bytes() == (source / file).read_bytes()
    old, new = AutoProcessor.from_pretrained(source), AutoProcessor.from_pretrained(out)
    for part in ("image_processor", "video_processor"):
        assert getattr(old, part).to_dict() == getattr(new, part).to_dict()
    talk = [{"role": "user", "content": "pair3 <think> pair4"}]
    assert (
        new.apply_chat_template(talk)
        == old.apply_chat_template(talk)
        == new.tokenizer.apply_chat_template(talk, tokenize=False)
    )
    ids = old.tokenizer(old.apply_chat_template(talk)).input_ids
    assert new.tokenizer(new.apply_chat_template(talk)).input_ids == ids
    assert 151_667 in ids and {151_644, 3, 4} < set(ids)
    assert (new.tokenizer.eos_token, new.tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_flat_config_gets_the_length_where_it_stands(tmp_path: Path, qwen) -> None:
    """Qwen2.5-VL is published without a text_config, and transformers would take a new one for the whole."""
    prepare(qwen(TOKENS, flat=True), tmp_path / "out", 4)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["vocab_size"] == TOKENS + 3
    assert "text_config" not in config


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
    assert (tmp_path / "four/model.safetensors").samefile(tmp_path / "eight/model.safetensors")


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


def without_lm_head(source: Path) -> None:
    index = json.loads((source / module.INDEX).read_text())
    del index["weight_map"]["lm_head.weight"]
    (source / module.INDEX).write_text(json.dumps(index))


def with_a_shorter_head(source: Path) -> None:
    change(source, 3, lambda tensors: tensors | {"lm_head.weight": matrix(TOKENS)})


def cut_off(source: Path, number: int = 1) -> None:
    shard = source / f"model-0000{number}-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])


def change(source: Path, number: int, how: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Writes a shard with other tensors."""
    shard = source / f"model-0000{number}-of-00003.safetensors"
    save_file(how(load_file(shard)), shard, metadata={"format": "pt"})


def change_config(source: Path, **changes: Any) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changes))


def tied_in_the_text_alone(source: Path) -> None:
    without_lm_head(source)
    change(source, 3, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"})
    text = json.loads((source / "config.json").read_text())["text_config"]
    change_config(source, tie_word_embeddings=False, text_config=text | {"tie_word_embeddings": True})


def without_a_layer(source: Path) -> None:
    """Neither the index nor the shard has it."""
    index = json.loads((source / module.INDEX).read_text())
    del index["weight_map"][LAYER]
    (source / module.INDEX).write_text(json.dumps(index))
    change(source, 2, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != LAYER})


def with_overlapping_tensors(source: Path) -> None:
    """Right in length, wrong inside: its header places the first of two tensors where the second is."""
    shard = source / "model-00003-of-00003.safetensors"
    data = shard.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    shard.write_bytes(data[:8] + json.dumps(header).encode().ljust(length)[:length] + data[8 + length :])


LAYER = "model.language_model.layers.0.mlp.up_proj.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4999812312\n"


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda source: (source / "config.json").unlink(), r"config\.json does not exist"),
    "missing shard": (
        lambda source: (source / "model-00002-of-00003.safetensors").unlink(),
        r"lacks model-00002-of-00003\.safetensors, named in model\.safetensors\.index\.json",
    ),
    "unreadable index": (
        lambda source: (source / module.INDEX).write_text('{"weight_map": {'),
        r"model\.safetensors\.index\.json cannot be read",
    ),
    "index without a map": (lambda source: (source / module.INDEX).write_text("{}"), r"index\.json has no weight_map"),
    "no weights": (
        lambda source: (source / module.INDEX).unlink(),
        r"neither model\.safetensors nor model\.safetensors\.index\.json",
    ),
    "garbage for a matrix": (
        lambda source: (source / "model-00003-of-00003.safetensors").write_bytes(b"garbage of some length"),
        r"model-00003-of-00003\.safetensors is not a whole safetensors file",
    ),
    **{
        f"pointer of Git LFS for shard {number}": (
            lambda source, number=number: (source / f"model-0000{number}-of-00003.safetensors").write_bytes(POINTER),
            rf"model-0000{number}-of-00003\.safetensors is not a whole safetensors file: it is a pointer of Git LFS",
        )
        for number in (1, 2, 3)
    },
    "empty shard": (
        lambda source: (source / "model-00002-of-00003.safetensors").write_bytes(b""),
        r"model-00002-of-00003\.safetensors is not a whole safetensors file",
    ),
    "rest cut off": (
        lambda source: cut_off(source, 2),
        r"model-00002-of-00003\.safetensors is not a whole safetensors file",
    ),
    "overlapping tensors": (with_overlapping_tensors, r"model-00003-of-00003\.safetensors is not a whole safetensors file"),
    "layer elsewhere": (
        lambda source: change(source, 2, lambda tensors: {"x": torch.ones(1)}),
        r"model-00002-of-00003\.safetensors lacks model\..*, which model\.safetensors\.index\.json places there",
    ),
    "layer nowhere": (without_a_layer, rf"missing: {LAYER}"),
    "layer of another shape": (
        lambda source: change(source, 2, lambda tensors: tensors | {LAYER: torch.ones(3, 3)}),
        rf"mismatched: .*{LAYER}",
    ),
    "stale single file": (
        lambda source: save_file({"x": torch.ones(1)}, source / module.SINGLE),
        r"model\.safetensors beside the files of its weights",
    ),
    "adapter": (
        lambda source: save_file({"x": torch.ones(1)}, source / "adapter_model.safetensors"),
        r"adapter_model\.safetensors beside the files of its weights",
    ),
    "tied in text_config alone": (
        tied_in_the_text_alone,
        r"no lm_head\.weight; transformers reads tie_word_embeddings at the top",
    ),
    "tied with another head": (
        lambda source: change_config(source, tie_word_embeddings=True),
        r"config\.json ties .*lm_head\.weight.* which differ",
    ),
    "another architecture": (lambda source: change_config(source, model_type="llava_next"), r"would not load its weights"),
    "unknown architecture": (lambda source: change_config(source, model_type="qwen9_vl"), r"qwen9_vl|would not load"),
    "index of numbers": (
        lambda source: (source / module.INDEX).write_text('{"weight_map": {"lm_head.weight": 3}}'),
        r"index\.json has no weight_map",
    ),
    "cut off": (cut_off, r"model-00001-of-00003\.safetensors is not a whole safetensors file"),
    "matrix elsewhere": (
        lambda source: change(source, 3, lambda tensors: {name: tensors[name] for name in tensors if name != "lm_head.weight"}),
        r"model-00003-of-00003\.safetensors lacks lm_head\.weight",
    ),
    "untied without a head": (without_lm_head, r"no lm_head\.weight"),
    "different lengths": (with_a_shorter_head, "different numbers of rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_source_is_refused_by_name_before_anything_is_written(tmp_path: Path, qwen, case: str) -> None:
    damage, message = REFUSED[case]
    source = qwen()
    damage(source)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(source, tmp_path / "out", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_matrix_too_short_for_its_own_tokenizer_is_refused(tmp_path: Path, qwen) -> None:
    with pytest.raises(ValueError, match=r"embed_tokens\.weight has 151668 rows, the tokenizer 151669 tokens"):
        prepare(qwen(TOKENS - 1), tmp_path / "out", 4)


def test_nothing_is_overwritten_and_an_empty_folder_is_filled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    original(source, 64, True)
    for out in (source, source / "prepared"):
        with pytest.raises(ValueError, match="source itself or lies in it"):
            prepare(source, out, 4)
    (tmp_path / "out").mkdir()
    prepare(source, tmp_path / "out", 4)
    with pytest.raises(FileExistsError, match="out is not empty"):
        prepare(source, tmp_path / "out", 4)


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    original(tmp_path / "source", 64, True)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        prepare(tmp_path / "source", tmp_path / "out", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_head_that_equals_the_embedding_it_is_tied_to_is_no_fault(tmp_path: Path, qwen) -> None:
    source = qwen(tied=True)
    index = json.loads((source / module.INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "model-00003-of-00003.safetensors"
    (source / module.INDEX).write_text(json.dumps(index))
    embedding = tensors(source)["model.language_model.embed_tokens.weight"]
    change(source, 3, lambda found: found | {"lm_head.weight": embedding})
    tokens = prepare(source, tmp_path / "out", 4).tokens
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.weight[tokens.start], embedding[151_652].to(model.dtype))


@pytest.mark.parametrize("case", ["pointer", "absent"])
def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path, qwen, capsys, case: str) -> None:
    source = qwen() if case == "pointer" else tmp_path / "nowhere"
    if case == "pointer":
        (source / "model-00002-of-00003.safetensors").write_bytes(POINTER)
    assert main(["prepare", "--model", str(source), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(source) in line
