"""``python benchmarks/gpu/checkpoint.py --out DIR [--shape tiny]``: random weights in Qwen3-VL-2B's shape, with latents.

Tokenizer and processors are those of modeling/tiny.py, whose few hundred ids are text; the other rows of the vocabulary are
there for their cost. The start token is made likelier, so that spans open. ``tiny`` writes the tiny checkpoint itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from future_l1_verl.latents.tokens import LatentSettings
from future_l1_verl.modeling import tiny

TEXT = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
ROPE = {"rope_theta": 5e6, "mrope_section": [24, 20, 20]}
VISION = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
    "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
OPENS = 15


def build(out: Path, seed: int) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    tiny.build(out, seed=seed)
    latent = LatentSettings.from_checkpoint(out)
    config = AutoConfig.from_pretrained(out)
    config.text_config.update(TEXT)
    config.text_config.rope_parameters.update(ROPE)
    config.vision_config.update(VISION)
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    # A row's logits have a standard deviation of about 1, this one's of 13 (with four layers); the others' logsumexp is 12.
    model.get_output_embeddings().weight.data[latent.tokens.start] *= OPENS
    model.save_pretrained(out)
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | latent.to_config(), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=("2b", "tiny"), default="2b")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.shape == "2b":
        build(args.out, args.seed)
    else:
        tiny.build(args.out, seed=args.seed)


if __name__ == "__main__":
    main()
