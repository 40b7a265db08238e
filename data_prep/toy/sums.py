"""``python -m data_prep.toy.sums --out DIR --seed S``: writes additions as rows of a stock verl job, to test rewards.

``train.parquet`` and ``val.parquet`` share no addition. ``taught.parquet`` has replies to all of them from a teacher who is
right half of the time: a model trained on it knows the form of replies, but not yet the right answers.
"""

import random
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from future_l1_verl.arguments import Parser

MISTAKEN = 0.5
OFF_BY = (-3, -2, -1, 1, 2, 3)
VALIDATION = 12  # of 64 additions


def row(a: int, b: int, index: int) -> dict[str, Any]:
    """Returns a row in the form of verl's RL data set (verl/utils/dataset/rl_dataset.py)."""
    question = f"What is {a} + {b}?"
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"style": "rule", "ground_truth": str(a + b)},
        "extra_info": {"index": index, "question": question},
    }


def taught(a: int, b: int, generator: random.Random) -> dict[str, Any]:
    """Returns the same prompt with a ``reply``, right or wrong."""
    answer = a + b + (generator.choice(OFF_BY) if generator.random() < MISTAKEN else 0)
    return {"prompt": row(a, b, 0)["prompt"], "reply": f"<reason>{a} and {b}</reason><answer>{answer}</answer>"}


def write(out: Path, seed: int) -> None:
    """Writes the three files to the directory ``out``, with 20 taught replies to each addition."""
    generator = random.Random(seed)
    pairs = list(product(range(8), repeat=2))
    generator.shuffle(pairs)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("val", pairs[:VALIDATION]), ("train", pairs[VALIDATION:])):
        pd.DataFrame([row(a, b, index) for index, (a, b) in enumerate(part)]).to_parquet(out / f"{name}.parquet")
    pd.DataFrame([taught(a, b, generator) for a, b in pairs * 20]).to_parquet(out / "taught.parquet")


def main() -> None:
    parser = Parser("python -m data_prep.toy.sums", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    args = parser.parse_args()
    write(args.out, args.seed)


if __name__ == "__main__":
    main()
