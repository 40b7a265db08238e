"""A plain Qwen3, as small as the tiny Qwen3-VL, for jobs without vision and latents.

``python -m future_l1_verl.toy.tiny_text --out DIR`` writes a checkpoint; with ``--data FILE``, a parquet file of chat
prompts (``prompt``) and replies (``reply``), it is first trained to reply like that.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from data_prep.toy.synthetic import words
from future_l1_verl.arguments import Parser
from future_l1_verl.progress import Progress
from future_l1_verl.toy.tiny import HEADS, HIDDEN_SIZE, text_config, tokenizer_of

BATCH = 32
LEARNING_RATE = 2e-3
WARM_UP = 20
IGNORED = -100


def build(out: Path, seed: int = 0, texts: Iterable[str] | None = None) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    """Writes a randomly initialised checkpoint (fp32) to the directory ``out``, and returns it with its tokenizer.

    ``texts`` train the tokenizer; by default they are the synthetic set's sentences.
    """
    tokenizer = tokenizer_of(words.sentences() if texts is None else texts)
    config = Qwen3Config(**text_config(tokenizer), head_dim=HIDDEN_SIZE // HEADS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return model, tokenizer


def teach(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, examples: list[tuple[str, str]], steps: int, seed: int
) -> None:
    """Trains ``model`` in place to follow each templated prompt by its reply and the end of its turn (AdamW, cross-entropy)."""
    ids = [[tokenizer(text)["input_ids"] for text in (prompt, reply + tokenizer.eos_token)] for prompt, reply in examples]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / WARM_UP, total_iters=WARM_UP)
    generator = torch.Generator().manual_seed(seed)
    for _ in Progress(range(steps), desc="teaching"):
        chosen = [ids[i] for i in torch.randint(len(ids), (BATCH,), generator=generator).tolist()]
        length = max(len(prompt) + len(reply) for prompt, reply in chosen)
        inputs = torch.full((BATCH, length), tokenizer.pad_token_id)
        labels = torch.full((BATCH, length), IGNORED)
        for i, (prompt, reply) in enumerate(chosen):
            inputs[i, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            labels[i, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
        # Padding follows the learned tokens, where causal attention does not see it.
        logits = model(inputs).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED).backward()
        optimizer.step()
        warm_up.step()
        optimizer.zero_grad()


def main() -> None:
    parser = Parser("python -m future_l1_verl.toy.tiny_text", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory to write")
    parser.add_argument("--data", type=Path, help="parquet file of prompts and replies to learn from")
    parser.add_argument("--steps", type=int, default=300, help="of teaching, with 32 replies each")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    args = parser.parse_args()
    if args.data is None:
        build(args.out, args.seed)
        return
    rows = pd.read_parquet(args.data)
    chats = [list(messages) for messages in rows.prompt]
    said = [f"{message['content']} {reply}" for chat, reply in zip(chats, rows.reply, strict=True) for message in chat]
    model, tokenizer = build(args.out, args.seed, said)
    prompts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    teach(model, tokenizer, list(zip(prompts, rows.reply, strict=True)), args.steps, args.seed)
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
