"""``python benchmarks/scaling.py``: what a step of stage 2 takes of Qwen3-VL-8B on 8, 32 and 256 GPUs, by arithmetic.

Prints the tables of docs/scaling.md (Markdown), which says where each number comes from. Nothing is run: rates of the hardware
are data sheets' (``Hardware``), and what share of them training reaches is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GIB, GB = 2**30, 1e9


@dataclass(frozen=True)
class Model:
    """Qwen3-VL-8B (its config.json). Parameters are counted of transformers' own class (tests/benchmarks/test_scaling.py)."""

    parameters: float = 8_767_123_696
    vision: float = 576_388_336
    layers: int = 36
    hidden: int = 4096
    kv_heads: int = 8
    head: int = 128
    vocabulary: int = 151_936
    patch: int = 3 * 2 * 16 * 16  # numbers of a patch of pixels: channels, frames, height, width
    merge: int = 4  # patches to a token

    @property
    def kv_bytes(self) -> int:
        """Keys and values of a token in bf16."""
        return 2 * self.layers * self.kv_heads * self.head * 2

    @property
    def language(self) -> float:
        """Parameters that a token of the sequence goes through."""
        return self.parameters - self.vision - self.vocabulary * self.hidden  # an embedding is looked up


@dataclass(frozen=True)
class Step:
    """Paper section 4: 64 questions, 8 answers each. Frames of 448 x 448 are 196 tokens a pair."""

    questions: int = 64
    siblings: int = 8  # answers to a question
    pairs: int = 8  # 16 observed frames, two to a patch
    tokens_a_pair: int = 196
    question: int = 150
    answer: int = 195  # paper section 6
    longest: int = 2048
    latents: float = 2.2 * 4  # spans an answer, L_max

    @property
    def answers(self) -> int:
        return self.questions * self.siblings

    @property
    def prompt(self) -> int:
        return self.pairs * self.tokens_a_pair + self.question

    @property
    def tokens(self) -> int:
        return self.answers * (self.prompt + self.answer)


@dataclass(frozen=True)
class Hardware:
    """H100 SXM (NVIDIA's data sheet): 80 GB, 3.35 TB/s, 989 dense bf16 TFLOP/s; 400 Gbit/s of network a GPU."""

    memory: float = 80 * GB
    bandwidth: float = 3.35e12
    flops: float = 989e12
    network: float = 50 * GB
    training_share: float = 0.4  # of the flops; assumed
    reading_share: float = 0.7  # of the bandwidth while decoding; assumed


MODEL, STEP, GPU = Model(), Step(), Hardware()
Table = list[list[str]]


def actor_memory(devices: int) -> Table:
    """GB on each of the actor's devices, and per row of the longest sequence."""
    trained = MODEL.parameters - MODEL.vision
    row = STEP.longest + 8192
    layer = (MODEL.language - MODEL.vocabulary * MODEL.hidden) / MODEL.layers
    states = row * MODEL.layers * MODEL.hidden * 2
    return [
        ["weights, gradients, Adam's two moments (fp32)", gb((4 * MODEL.vision + 16 * trained) / devices)],
        ["one layer gathered in bf16, and the next", gb(2 * 2 * layer)],
        ["the output head gathered in bf16", gb(2 * MODEL.vocabulary * MODEL.hidden)],
        [f"a row of {row:,} tokens: a hidden state a layer (bf16, recomputed within)", gb(states)],
        ["its logits in fp32, and their gradient", gb(2 * row * MODEL.vocabulary * 4)],
        ["its latents (bf16), if it had ten spans of four", gb(40 * MODEL.hidden * 2)],
    ]


def rollout_memory(share: float) -> list[str]:
    """GB on a device with the whole model, and how many answers at once what is left of ``share`` of its memory holds."""
    weights = 2 * MODEL.parameters
    left = share * GPU.memory - weights - 3 * GB
    sequence = (STEP.prompt / STEP.siblings + STEP.answer) * MODEL.kv_bytes
    return [f"{share:.0%}", gb(weights), gb(left), mb(sequence), f"{left / sequence:,.0f}"]


def step_bytes() -> Table:
    """What is written to TransferQueue in a step; each pass of the actor and the reference reads what it needs of it."""
    pixels = STEP.answers * STEP.pairs * STEP.tokens_a_pair * MODEL.merge * MODEL.patch * 2
    ids = STEP.tokens * 8 * (2 + 4)  # input ids, mask, four rows of positions
    scores = STEP.answers * STEP.answer * 4 * 6
    latents = STEP.answers * STEP.latents * MODEL.hidden * 2
    total = pixels + ids + scores + latents
    parts = {
        "pixels (bf16)": pixels,
        "token ids, masks, positions": ids,
        "log-probs, advantages": scores,
        "latents (bf16)": latents,
    }
    return [[name, mb(size), f"{size / total:.2%}"] for name, size in parts.items()]


def times(devices: int) -> list[str]:
    """Seconds of a colocated step: training, decoding, a weight update."""
    patches = STEP.answers * STEP.pairs * STEP.tokens_a_pair * MODEL.merge
    # Old and reference forward; forward, recomputed, and backward. The frozen vision tower goes forward, four times.
    work = STEP.tokens * MODEL.language * (2 * 2 + 8) + patches * MODEL.vision * 2 * 4
    train = work / (devices * GPU.flops * GPU.training_share)
    # All answers to a question are on one device.
    questions = math.ceil(STEP.questions / devices)
    at_once = questions * STEP.siblings
    read = 2 * MODEL.parameters + at_once * (STEP.prompt + STEP.answer) * MODEL.kv_bytes
    token = read / (GPU.bandwidth * GPU.reading_share)
    read_prompts = STEP.prompt * 2 * MODEL.language + patches / STEP.answers * MODEL.vision * 2
    prefill = questions * read_prompts / (GPU.flops * GPU.training_share)
    gather = 4 * MODEL.parameters / (GPU.network if devices > 8 else 9 * GPU.network)
    return [
        f"{devices}", f"{train:.1f}", f"{at_once:.0f}", f"{1e3 * token:.1f}", f"{prefill + token * STEP.answer:.1f}",
        f"{prefill + token * STEP.longest:.0f}", f"{gather:.2f}",
    ]  # fmt: skip


def gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.05 * GB else mb(size)


def mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def markdown(head: list[str], rows: Table) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def tables() -> dict[str, str]:
    fixed, *rest = zip(*(actor_memory(devices) for devices in (8, 32, 256)), strict=True)
    lengths = [f"{length} tokens [s]" for length in (STEP.answer, STEP.longest)]
    heads = ["GPUs", "training [s]", "answers a GPU", "a token [ms]", *lengths, "weights [s]"]
    kept = ["of the memory", "weights (bf16)", "keys and values", "one answer and an eighth of its prompt", "answers at once"]
    actor = [[fixed[0][0], *(each[1] for each in fixed)], *([row[0][0], *(each[1] for each in row)] for row in rest)]
    return {
        "actor": markdown(["on each of the actor's GPUs", "8", "32", "256"], actor),
        "rollout": markdown(kept, [rollout_memory(share) for share in (0.7, 0.85)]),
        "bytes": markdown(["a step's data", "size", "share"], step_bytes()),
        "times": markdown(heads, [times(devices) for devices in (8, 32, 256)]),
    }  # fmt: skip


def main() -> None:
    for table in tables().values():
        print(table, end="\n\n")


if __name__ == "__main__":
    main()
