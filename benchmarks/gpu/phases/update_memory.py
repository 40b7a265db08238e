"""Peak memory of an update of the actor by the length of its packed micro-batch, in bytes and in logits: bf16 ``[T, V]``.

Half of a micro-batch is the prompt, the other half eight answers. Weights and Adam's state are there before it; gradients are
made anew, and do not count in ``in_logits``.
"""

from __future__ import annotations

import json
import time
from typing import Any

from actor_harness import with_old
from checkpoint import checkpoint
from learner import Learner, questions, tree
from peak import peak
from record import Form, Record, run

ANSWERS = 8


def measure(record: Record, form: Form) -> None:
    path = checkpoint("tiny untied" if form.cpu else "8b, 2 layers", form.folder)
    vocabulary = json.loads((path / "config.json").read_text())["text_config"]["vocab_size"]
    learner = Learner(tree(path, "bf16"))

    def data(tokens: int) -> Any:
        return with_old(learner, questions(path, tokens // 2, [tokens // 2 // ANSWERS] * ANSWERS))

    learner.step(data(256))  # makes Adam's state
    trained = [parameter for parameter in learner.engine.module.parameters() if parameter.requires_grad]
    gradients = sum(parameter.numel() * parameter.itemsize for parameter in trained)

    def update(tokens: int) -> dict[str, Any]:
        batch = data(tokens)
        learner.engine.optimizer.zero_grad()
        started = time.perf_counter()
        before, above = peak(lambda: learner.step(batch))
        return {
            "tokens": tokens, "scored": int(batch["responses"].values().numel()), "seconds": time.perf_counter() - started,
            "before_bytes": before, "above_bytes": above, "gradient_bytes": gradients, "logits_bytes": 2 * tokens * vocabulary,
            "in_logits": (above - gradients) / (2 * tokens * vocabulary),
        }  # fmt: skip

    for tokens in (256, 512) if form.cpu else (2048, 5120, 10240):
        record.cell(f"{tokens} tokens", lambda tokens=tokens: update(tokens))


if __name__ == "__main__":
    run(measure, ranks=True)
