"""One video prompt, four readers: stage 1, stage 2's agent loop, vLLM and transformers' processor see the same token ids."""

import asyncio
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from transformers import AutoProcessor, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from verl.utils.tokenizer import hf_processor
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from data_prep.toy.synthetic.writing import Settings, write_set
from future_l1_verl.data.clips import Clips
from future_l1_verl.data.prompts import messages, processor_inputs, prompt_length, vision_inputs
from future_l1_verl.data.reader import read
from future_l1_verl.data.rows import Row
from future_l1_verl.data.seeing import Seen, see
from future_l1_verl.decoding.vllm import engine_arguments
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings, LatentTokens
from future_l1_verl.rl.dataset import LatentRLDataset
from future_l1_verl.sft.dataset import LatentSFTDataset
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.engine

SYSTEM = "Think of what comes next."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set")
    write_set(out / "data", Settings(train_questions=2, val_questions=2, test_questions=2), lambda items, label: items)
    tiny.build(out / "model")
    return out


# How Qwen splits text before its byte pairs are merged (its tokenizer.json).
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="module")
def qwen(folder: Path) -> Path:
    """The same set beside a model directory with Qwen's real vocabulary, which the package dashscope ships."""
    out = folder / "qwen"
    shutil.copytree(folder / "model", out / "model")
    (out / "data").symlink_to(folder / "data")
    vocabulary = Path(find_spec("dashscope").origin).parent / "resources/qwen.tiktoken"
    special = [*tiny.QWEN_TOKENS, *tiny.MARKUP, *CONTROL_TOKENS]
    real = TikTokenConverter(str(vocabulary), pattern=PATTERN, extra_special_tokens=special).converted()
    processor = AutoProcessor.from_pretrained(folder / "model")
    names = ("image_token", "video_token", "vision_start_token", "vision_end_token")
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=real, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=tiny.CHAT_TEMPLATE,
        extra_special_tokens={name: getattr(processor.tokenizer, name) for name in names},
    )  # fmt: skip
    processor.save_pretrained(out / "model")
    ids = processor.tokenizer.get_vocab()
    config = json.loads((out / "model/config.json").read_text())
    config |= {f"{name}_id": ids[getattr(processor.tokenizer, name)] for name in names}
    config |= LatentSettings(LatentTokens.from_tokenizer(processor.tokenizer), 4).to_config()
    (out / "model/config.json").write_text(json.dumps(config))
    return out


def of_stage_1(folder: Path, form: str) -> list[int]:
    processor = hf_processor(str(folder / "model"))
    config = OmegaConf.create({
        "max_latents": 4, "max_length": 512, "system_prompt": SYSTEM, "supervise_decisions": False, "observed": form,
        "video_frames": 4, "targets": "resize", "text_only": False, "cache_dir": None, "max_bad_rate": 0.0,
        "manifest": str(folder / "skipped.jsonl"), "videos": None,
    })  # fmt: skip
    data = LatentSFTDataset(str(folder / "data/train.parquet"), processor.tokenizer, config, processor)
    item = data[0]
    return item["input_ids"][: int(item["loss_mask"].argmax())].tolist()


def in_stage_2(folder: Path, form: str) -> tuple[list[int], Any]:
    """Token ids as verl's agent loop makes them, and what it hands to vLLM."""
    processor = hf_processor(str(folder / "model"))
    config = OmegaConf.create({
        "system_prompt": SYSTEM, "observed": form, "videos": None, "video_frames": 4, "max_prompt_length": 512,
        "manifest": str(folder / "skipped.jsonl"), "max_bad_rate": 0.0,
    })  # fmt: skip
    data = LatentRLDataset(str(folder / "data/train.parquet"), processor.tokenizer, config, processor)
    chat = data[0]["raw_prompt"]
    images, videos = asyncio.run(data.process_vision_info(chat, processor.image_processor.patch_size, config))
    builder = create_continuous_token_builder(
        processor.tokenizer, hf_model_type="qwen3_vl", chat_template_kwargs={}, mm_processor_kwargs={}, processor=processor
    )
    return builder.build_initial_tokens(chat, images=images, videos=videos), (images, videos)


def first_row(folder: Path) -> tuple[Row, Seen]:
    row = next(read([folder / "data/train.parquet"]))
    return row, see(row, Clips())


def by_the_processor(folder: Path, form: str) -> list[int]:
    row, seen = first_row(folder)
    chat, processor = messages(row, seen.observed, SYSTEM, form), AutoProcessor.from_pretrained(folder / "model")
    ids = processor_inputs(processor, chat)["input_ids"][0].tolist()
    assert prompt_length(processor, chat) == len(ids)
    return ids


def by_vllm(folder: Path, seen: dict[str, tuple[list | None, list | None]]) -> dict[str, list[int]]:
    from vllm import LLM, SamplingParams

    processor, (row, observed) = AutoProcessor.from_pretrained(folder / "model"), first_row(folder)
    engine = LLM(
        model=str(folder / "model"), dtype="float32", max_model_len=512, enforce_eager=True,
        limit_mm_per_prompt={"image": len(row.observed), "video": 1}, **engine_arguments(str(folder / "model")),
    )  # fmt: skip
    found = {}
    for form, (images, videos) in seen.items():
        chat = messages(row, observed.observed, SYSTEM, form)
        text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        data = {"image": images} if images else {"video": videos}
        (output,) = engine.generate([{"prompt": text, "multi_modal_data": data}], SamplingParams(max_tokens=1), use_tqdm=False)
        found[form] = list(output.prompt_token_ids)
    return found


def test_four_readers_see_the_same_ids(folder: Path) -> None:
    rollouts = {form: in_stage_2(folder, form) for form in ("frames", "video")}
    by_engine = by_vllm(folder, {form: seen for form, (_, seen) in rollouts.items()})
    for form, (ids, _) in rollouts.items():
        expected = by_the_processor(folder, form)
        assert of_stage_1(folder, form) == ids == by_engine[form] == expected
    # Frames of a video come in pairs with a time before each; so the forms differ.
    assert rollouts["frames"][0] != rollouts["video"][0]
    text = AutoProcessor.from_pretrained(folder / "model").tokenizer.decode(rollouts["video"][0])
    assert "seconds>" in text


@pytest.mark.parametrize("form", ["frames", "video"])
def test_with_qwens_own_vocabulary_as_well(form: str, qwen: Path) -> None:
    ids, _ = in_stage_2(qwen, form)
    assert of_stage_1(qwen, form) == ids == by_the_processor(qwen, form)
    # As in Qwen's own tokenizer: <|im_start|>, <|image_pad|> and <|video_pad|>, and a word of its vocabulary.
    assert ids[0] == 151644 and (151655 if form == "frames" else 151656) in ids
    tokenizer = AutoProcessor.from_pretrained(qwen / "model").tokenizer
    assert tokenizer.encode("hello world") == [14990, 1879]


def test_times_are_those_of_the_clip(folder: Path) -> None:
    row, seen = first_row(folder)
    observed = seen.observed
    chat = messages(row, observed, None, "video")
    _, ((pixels, metadata),) = vision_inputs(chat, 16)
    seconds = [frame.seconds for frame in observed]
    assert len(pixels) == len(seconds) + len(seconds) % 2
    assert np.allclose(np.array(metadata["frames_indices"][: len(seconds)]) / metadata["fps"], seconds)
