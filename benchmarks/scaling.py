"""``python benchmarks/scaling.py``: what a step of stage 2 takes of Qwen3-VL-8B on 8, 32 and 256 GPUs, by arithmetic.

Prints the tables of docs/scaling.md (Markdown), which says where each number comes from. Nothing is run: rates of the hardware
are data sheets' (``Hardware``), and what share of them training reaches is assumed. Beside what training takes stands what it
would with verl's rows, each an answer with a prompt of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from future_l1_verl.modeling.head import CHUNK

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
    def head_parameters(self) -> float:
        """Returns how many parameters the output head has."""
        return self.vocabulary * self.hidden

    @property
    def decoder(self) -> float:
        """Parameters of the layers that a token of the sequence goes through."""
        return self.parameters - self.vision - 2 * self.head_parameters  # an embedding is looked up


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
    longest_prompt: int = 8192
    latents: float = 2.2 * 4  # spans an answer, L_max

    @property
    def answers(self) -> int:
        return self.questions * self.siblings

    @property
    def prompt(self) -> int:
        return self.pairs * self.tokens_a_pair + self.question

    @property
    def micro_batch(self) -> int:
        """Tokens that the recipes let it have: those of the longest row."""
        return self.longest_prompt + self.longest

    @property
    def row(self) -> int:
        """Tokens of an answer with its prompt."""
        return self.prompt + self.answer

    @property
    def packed(self) -> int:
        """Tokens of a question with its answers, the prompt once."""
        return self.prompt + self.siblings * self.answer

    @property
    def patches(self) -> int:
        """Returns how many patches the frames of a question have."""
        return self.pairs * self.tokens_a_pair * MODEL.merge


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
CHUNKS_ALIVE = 2.1  # of fp32 logits, at the peak of a chunk's backward pass (tests/benchmarks/test_scaling.py)
Table = list[list[str]]


def actor_memory(devices: int) -> Table:
    """GB on each of the actor's devices, whatever it computes."""
    trained = MODEL.parameters - MODEL.vision
    return [
        ["weights, gradients, Adam's two moments (fp32)", gb((4 * MODEL.vision + 16 * trained) / devices)],
        ["one layer gathered in bf16, and the next", gb(2 * 2 * MODEL.decoder / MODEL.layers)],
        ["the output head gathered in bf16", gb(2 * MODEL.head_parameters)],
    ]


def micro_batch() -> Table:
    """Returns what a micro-batch holds and how many GB that takes at most, with verl's rows and packed."""
    tokens = STEP.micro_batch
    states = gb(tokens * MODEL.layers * MODEL.hidden * 2)
    # verl keeps bf16 logits of all tokens and those divided by the temperature, and makes the gradient of both.
    logits = tokens * MODEL.vocabulary * 2 * 4
    questions = tokens // STEP.packed
    latents = gb(40 * MODEL.hidden * 2)
    return [
        ["answers with their prompts", f"{tokens // STEP.row}", f"{questions * STEP.siblings}, of {questions} questions"],
        ["a hidden state a layer (bf16, recomputed within)", states, states],
        ["logits and their gradients", gb(logits), gb(CHUNKS_ALIVE * CHUNK * 4)],
        ["an answer's latents (bf16), if it had ten spans of four", latents, latents],
    ]


def rollout_memory(share: float) -> list[str]:
    """GB on a device with the whole model, and how many answers at once what is left of ``share`` of its memory holds."""
    weights = 2 * MODEL.parameters
    left = share * GPU.memory - weights - 3 * GB
    sequence = (STEP.prompt / STEP.siblings + STEP.answer) * MODEL.kv_bytes
    return [f"{share:.0%}", gb(weights), gb(left), mb(sequence), f"{left / sequence:,.0f}"]


def step_bytes() -> Table:
    """What is written to TransferQueue in a step; each pass of the actor and the reference reads what it needs of it."""
    pixels = STEP.questions * STEP.patches * MODEL.patch * 2
    parts = {
        "pixels (bf16)": (STEP.siblings * pixels, pixels),
        # input ids, mask, four rows of positions
        "token ids, masks, positions": 2 * (STEP.answers * STEP.row * 8 * (2 + 4),),
        "log-probs, advantages": 2 * (STEP.answers * STEP.answer * 4 * 6,),
        "latents (bf16)": 2 * (STEP.answers * STEP.latents * MODEL.hidden * 2,),
    }
    totals = [sum(sizes) for sizes in zip(*parts.values(), strict=True)]
    parts["all"] = tuple(totals)
    return [
        [name, *(text for size, total in zip(sizes, totals, strict=True) for text in (mb(size), f"{size / total:.2%}"))]
        for name, sizes in parts.items()
    ]


def training(devices: int) -> list[float]:
    """Seconds of a step's passes with verl's rows, and with shared prompts in three passes and in two.

    In operations a parameter: a forward pass takes 2 a token; the update forward, recomputed and backward, 8 in the layers and
    in our head, 6 in verl's head, which keeps its logits. The frozen vision tower goes forward once a pass. A question whose
    answers are on several devices has its prompt on each.
    """
    parts = max(STEP.questions, devices)
    scored = STEP.answers * STEP.answer
    tokens, prompts = STEP.answers * STEP.row, STEP.answers
    rows = tokens * (MODEL.decoder * 12 + MODEL.head_parameters * 10) + prompts * STEP.patches * MODEL.vision * 2 * 3
    ours = []
    for forwards in (2, 1):
        each = 2 * forwards + 8
        language = (parts * STEP.prompt + scored) * MODEL.decoder * each + scored * MODEL.head_parameters * each
        ours.append(language + parts * STEP.patches * MODEL.vision * 2 * (forwards + 1))
    return [work / (devices * GPU.flops * GPU.training_share) for work in (rows, *ours)]


def times(devices: int) -> list[str]:
    """Seconds of a colocated step: training, decoding, a weight update."""
    rows, three, two = training(devices)
    # All answers to a question are on one device.
    questions = math.ceil(STEP.questions / devices)
    at_once = questions * STEP.siblings
    read = 2 * MODEL.parameters + at_once * STEP.row * MODEL.kv_bytes
    token = read / (GPU.bandwidth * GPU.reading_share)
    read_prompts = STEP.prompt * 2 * MODEL.decoder + STEP.patches * MODEL.vision * 2
    prefill = questions * read_prompts / (GPU.flops * GPU.training_share)
    gather = 4 * MODEL.parameters / (GPU.network if devices > 8 else 9 * GPU.network)
    return [
        f"{devices}", f"{rows:.1f}", f"{three:.1f}", f"{two:.1f}", f"{rows / two:.1f}", f"{at_once:.0f}", f"{1e3 * token:.1f}",
        f"{prefill + token * STEP.answer:.1f}", f"{prefill + token * STEP.longest:.0f}", f"{gather:.2f}",
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
    heads = ["GPUs", "training, verl's rows [s]", "three passes [s]", "two [s]", "rows / two", "answers a GPU", "a token [ms]"]
    kept = ["of the memory", "weights (bf16)", "keys and values", "one answer and an eighth of its prompt", "answers at once"]
    held = [f"a micro-batch of {STEP.micro_batch:,} tokens", "verl's rows", "shared prompt"]
    actor = [[fixed[0][0], *(each[1] for each in fixed)], *([row[0][0], *(each[1] for each in row)] for row in rest)]
    return {
        "actor": markdown(["on each of the actor's GPUs", "8", "32", "256"], actor),
        "micro-batch": markdown(held, micro_batch()),
        "rollout": markdown(kept, [rollout_memory(share) for share in (0.7, 0.85)]),
        "bytes": markdown(["a step's data", "verl's rows", "share", "shared prompt", "share"], step_bytes()),
        "times": markdown([*heads, *lengths, "weights [s]"], [times(devices) for devices in (8, 32, 256)]),
    }  # fmt: skip


def main() -> None:
    for table in tables().values():
        print(table, end="\n\n")


if __name__ == "__main__":
    main()
