"""A Qwen3-VL or Qwen2.5-VL of under two million parameters, for runs that need the real code paths but no accelerator.

``python -m future_l1_verl.toy.tiny --out DIR`` writes a checkpoint that transformers, vLLM and verl load unchanged.
Its processors are the real ones; a 64x64 image becomes four embeddings. With ``--pretrain`` it is first trained to
describe clips of the synthetic set, so that its vision features are useful before stage 1 freezes them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BaseVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from data_prep.toy.synthetic import words
from future_l1_verl.arguments import Parser
from future_l1_verl.latents.tokens import CONTROL_TOKENS, LatentSettings, LatentTokens

FRAME_SIZE = 64
PATCH_SIZE = 16
MERGE_SIZE = 2
HIDDEN_SIZE = 128
HEADS = 4
LAYERS = 4

QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MARKUP = ("<reason>", "</reason>", "<answer>", "</answer>")

# Newlines are inside expressions, where whitespace control cannot remove them.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class _Backbone:
    """The classes of an architecture, and the settings of its parts that differ from the other architecture."""

    model: type[PreTrainedModel]
    config: type[PreTrainedConfig]
    processor: type[ProcessorMixin]
    video_processor: type[BaseVideoProcessor]
    text: dict[str, Any]
    rope: dict[str, Any]
    vision: dict[str, Any]


BACKBONES = {
    "qwen3_vl": _Backbone(
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
        # vLLM picks the language model's class by this name.
        text={"head_dim": HIDDEN_SIZE // HEADS, "architectures": ["Qwen3ForCausalLM"]},
        rope={"mrope_section": [6, 5, 5], "mrope_interleaved": True},
        vision={"num_position_embeddings": (FRAME_SIZE // PATCH_SIZE) ** 2, "deepstack_visual_indexes": [0]},
    ),
    "qwen2_5_vl": _Backbone(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
        text={"bos_token_id": None},
        rope={"mrope_section": [4, 6, 6]},
        # The first layer sees windows of one embedding, the second whole pictures.
        vision={"window_size": PATCH_SIZE * MERGE_SIZE, "fullatt_block_indexes": [1]},
    ),
}


def build(
    out: Path, seed: int = 0, max_latents: int = 4, texts: Iterable[str] | None = None, backbone: str = "qwen3_vl"
) -> None:
    """Writes a randomly initialised checkpoint (fp32) with tokenizer and processors to the directory ``out``.

    ``backbone`` is one of `BACKBONES`. ``texts`` train the tokenizer; by default they are the synthetic set's sentences. The
    weights depend only on ``seed``, backbone and tokenizer. ``config.json`` has the latent settings, with the
    budget ``max_latents``.
    """
    out, kind = Path(out), BACKBONES[backbone]
    tokenizer = tokenizer_of(words.sentences() if texts is None else texts)
    settings = LatentSettings(LatentTokens.from_tokenizer(tokenizer), max_latents)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.model(_config(tokenizer, kind))
        _scale_features(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    _processor(tokenizer, kind).save_pretrained(out)
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings.to_config(), indent=2) + "\n")


def tokenizer_of(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer: it encodes any text, and the words of ``texts`` are mostly one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Markup is split off before merges are learned, exactly as when encoding.
    plain = (_without_markup(text) for text in texts)
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in (*QWEN_TOKENS, *CONTROL_TOKENS)],
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for pieces in plain for piece in pieces), trainer)
    # Not special: answers are read from the decoded text, which may omit special tokens.
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
    )


def _without_markup(text: str) -> list[str]:
    for token in MARKUP:
        text = text.replace(token, "\0")
    return text.split("\0")


def text_config(tokenizer: PreTrainedTokenizerFast, rope: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Returns the settings of the language model, with further ``rope_parameters``."""
    return {
        # Exactly the tokenizer's length: vLLM masks padding rows, but an actor would not.
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 2 * HIDDEN_SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope},
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def _config(tokenizer: PreTrainedTokenizerFast, backbone: _Backbone) -> PreTrainedConfig:
    vocabulary = tokenizer.get_vocab()
    return backbone.config(
        text_config=text_config(tokenizer, backbone.rope) | backbone.text,
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN_SIZE,
            "intermediate_size": 2 * HIDDEN_SIZE,
            "num_heads": HEADS,
            "out_hidden_size": HIDDEN_SIZE,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": 2,
            **backbone.vision,
        },
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def _processor(tokenizer: PreTrainedTokenizerFast, backbone: _Backbone) -> ProcessorMixin:
    # A mean of zero keeps the black background at zero, without which the small model does not learn to see.
    pixels = {"image_mean": [0.0] * 3, "image_std": [0.25] * 3}
    patches = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": 2}
    smallest, largest = (PATCH_SIZE * MERGE_SIZE) ** 2, (2 * FRAME_SIZE) ** 2
    image = Qwen2VLImageProcessor(size={"shortest_edge": smallest, "longest_edge": largest}, **patches, **pixels)
    clip = {"shortest_edge": 2 * smallest, "longest_edge": 16 * largest}
    video = backbone.video_processor(size=clip, **patches, **pixels)
    return backbone.processor(image, tokenizer, video, chat_template=CHAT_TEMPLATE)


@torch.no_grad()
def _scale_features(model: PreTrainedModel) -> None:
    """Brings the merger's output to a root mean square of one, that of the last hidden state after its norm.

    With the usual initialisation features are about ten times smaller than hidden states, and a regression between them
    would first have to learn the scale.
    """
    visual = model.model.visual
    side = FRAME_SIZE // PATCH_SIZE
    pixels = torch.randn(side**2, visual.patch_embed.in_channels * 2 * PATCH_SIZE**2)
    features = visual(pixels, grid_thw=torch.tensor([[1, side, side]])).pooler_output
    *_, last = (layer for layer in visual.merger.modules() if isinstance(layer, torch.nn.Linear))
    last.weight /= features.pow(2).mean().sqrt()


def main() -> None:
    parser = Parser("python -m future_l1_verl.toy.tiny", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory to write")
    parser.add_argument("--data", type=Path, help="synthetic set (python -m data_prep.toy.synthetic) to pretrain on")
    parser.add_argument("--backbone", choices=BACKBONES, default="qwen3_vl")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--max-latents", type=int, default=4, help="budget of a latent span")
    parser.add_argument("--pretrain", type=int, default=0, metavar="STEPS", help="caption pretraining steps")
    args = parser.parse_args()
    if args.pretrain and args.data is None:
        parser.error("--pretrain needs --data")
    build(args.out, seed=args.seed, max_latents=args.max_latents, backbone=args.backbone)
    if args.pretrain:
        from future_l1_verl.toy.pretrain import pretrain

        pretrain(args.out, args.data, steps=args.pretrain, seed=args.seed)


if __name__ == "__main__":
    main()
